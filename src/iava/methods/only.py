"""ONLY: in one pass, contrast with what the text-bound heads of a single layer say.

ONLY: One-Layer Intervention Sufficiently Mitigates Hallucinations in Large Vision-Language Models (arXiv 2507.00898,
ICCV 2025).
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine.attention import Call
from iava.engine.layer_skip import carried
from iava.errors import IavaError
from iava.methods.base import Method, mix
from iava.methods.checks import check_number, check_whole

RESIDUAL = 0.2
SHARE = 0.5
"""How much of the last layer's input and of the model's own output the authors' code adds to the carried one."""


class ONLY(Method):
    """One-layer intervention (arXiv 2507.00898).

    In one layer, each head's text-to-visual entropy ratio (TVER) is the entropy of the last token's attention to text
    over that of its attention to the image. Heads below the layer's mean are silenced, and what the others give is
    carried to the logits by itself: the textual-enhanced logits f'. With d = sum |softmax(f) - softmax(f')|, the result
    is f + alpha1 * f' where d < gamma (both agree), else (1 + alpha2) * f - alpha2 * f', over the plausible tokens.
    The model runs once; there is no second branch to read or to remember.

    Checked: against the authors' code for LLaVA, and against a computation by hand. TVER, the threshold at the mean, d
    and the two combinations are the paper's as others quote them; the paper itself could not be read. From the code
    alone: attention above mean + standard deviation of its kind is set to zero, the first token that is no image counts
    neither way, and the carried output skips to the last layer (`engine.carried`) with `RESIDUAL` and `SHARE`.
    Where a layer normalises what its attention gives (Gemma 2 and 3, GLM-4V) the carried sum is normalised as well.

    Args:
        layer: whose heads, from 0; any but the last.
        gamma: distance of the two distributions, 0 to 2, below which they agree.
        alpha1: weight of f' where they agree, at least 0.
        alpha2: strength of the contrast where they do not, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        model: InstructBLIP and BLIP-2 hand decoding to their language model, which does not know the image: for them
            this is the vision-language model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> model.generate(**inputs, custom_generate=ONLY(), max_new_tokens=64)
    """

    name, paper = "only", "2507.00898"
    cost = "1"

    def __init__(
        self,
        *,
        layer: int = 0,
        gamma: float = 0.2,
        alpha1: float = 3.0,
        alpha2: float = 1.0,
        beta: float = 0.1,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_whole("layer", layer, low=0)
        check_number("gamma", gamma, low=0, high=2)
        check_number("alpha1", alpha1, low=0)
        check_number("alpha2", alpha2, low=0)
        check_number("beta", beta, low=0, high=1)
        self.layer = layer
        self.gamma = gamma
        self.alpha1 = alpha1
        self.alpha2 = alpha2
        self.beta = beta
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layer", "gamma", "alpha1", "alpha2", "beta")}

    def steer(
        self, model: PreTrainedModel, is_image: torch.Tensor, second: torch.Tensor
    ) -> AbstractContextManager[None]:
        layers = model.get_decoder().config.num_hidden_layers
        if self.layer >= layers - 1:
            raise IavaError(f"layer is {self.layer}, but the model has {layers} layers: use 0 to {layers - 2}")

        def give(call: Call) -> torch.Tensor:
            seen = call.scores[:, 0].isfinite()
            return call.mixed(textual(call.weights(call.scores), call.fit(is_image) & seen, seen))

        return carried(model, self.layer, give, residual=RESIDUAL, share=SHARE)

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        distance = (logits.softmax(dim=-1) - negative.softmax(dim=-1)).abs().sum(dim=-1, keepdim=True)
        return torch.where(distance < self.gamma, logits + self.alpha1 * negative, mix(logits, negative, self.alpha2))


def textual(weights: torch.Tensor, image: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Attention with the outliers of each kind at zero, and so all heads whose TVER lies below their mean.

    Args:
        weights: (B, heads, K) attention of one token.
        image: (B, K) bool, True at image tokens.
        seen: (B, K) bool, True at all tokens that may be seen.
    """
    first = seen & (seen.cumsum(dim=1) == 1)
    text, image = (seen & ~image & ~first)[:, None], image[:, None]
    weights = _without_outliers(_without_outliers(weights, text), image)
    # A head that looks at nothing of a kind: as if at one token of text, or at all of an endless image.
    of_text = _entropy(weights, text).nan_to_num(nan=0.0)
    of_image = _entropy(weights, image).nan_to_num(nan=math.inf)
    ratio = of_text / of_image
    below = ratio < ratio.mean(dim=1, keepdim=True)
    return weights.masked_fill(below[..., None], 0.0)


def _without_outliers(weights: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    count = kind.sum(dim=-1, keepdim=True)
    mean = (weights * kind).sum(dim=-1, keepdim=True) / count
    variance = ((weights - mean).square() * kind).sum(dim=-1, keepdim=True) / (count - 1)
    return weights.masked_fill(kind & (weights > mean + variance.sqrt()), 0.0)


def _entropy(weights: torch.Tensor, kind: torch.Tensor) -> torch.Tensor:
    of_kind = weights * kind
    shares = of_kind / of_kind.sum(dim=-1, keepdim=True)
    return -(shares * (shares + 1e-6).log()).sum(dim=-1)
