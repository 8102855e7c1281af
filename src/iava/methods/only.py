"""ONLY: in one pass, contrast with the logits of the text-bound heads of a single layer.

ONLY: One-Layer Intervention Sufficiently Mitigates Hallucinations in Large Vision-Language Models (arXiv 2507.00898,
ICCV 2025).
"""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from iava.engine.attention import AttentionCall
from iava.engine.layer_skip import layer_skip_logits
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole
from iava.methods.mixing import mix

RESIDUAL = 0.2
SHARE = 0.5
"""How much of the last layer's input, and of the model's own output, the authors' code adds to the skipping one."""


@dataclass(eq=False, kw_only=True)
class ONLY(Method):
    """One-layer intervention (arXiv 2507.00898).

    In one layer, each head's text-to-visual entropy ratio (TVER) is the entropy of the last token's attention to text
    over that of its attention to the image. Heads below the layer's mean are silenced, and what the others give skips
    to the logits by itself: the textual-enhanced logits f'. With d = sum |softmax(f) - softmax(f')|, the result
    is f + alpha1 * f' where d < gamma (both agree), else (1 + alpha2) * f - alpha2 * f', over the plausible tokens.
    The model runs once; there is no contrast branch to read or to cache.

    Checked: against the authors' code for LLaVA and InstructBLIP, and against a computation by hand. TVER, the
    threshold at the mean, d and the two combinations are the paper's as others quote them; the paper itself could not
    be read. From the code alone: attention above mean + standard deviation of its kind is set to zero, a first token
    before the image counts neither way (InstructBLIP's image comes first, so all of its text counts), and the output
    skips to the last layer (`layer_skip_logits`) with `RESIDUAL` and `SHARE`.
    Where a layer normalises what its attention gives (Gemma 2 and 3, GLM-4V), the skipping sum is normalised as well.

    Args:
        layer: whose heads, from 0; any but the last.
        gamma: distance of the two distributions, 0 to 2, below which they agree.
        alpha1: weight of f' where they agree, at least 0.
        alpha2: strength of the contrast where they do not, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        norm: whether what skips passes the last layer's first norm. None does as the authors' code: not for
            InstructBLIP.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.ONLY(gamma=0.2), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    layer: int = 0
    gamma: float = 0.2
    alpha1: float = 3.0
    alpha2: float = 1.0
    beta: float = 0.1
    norm: bool | None = None

    name, paper = "only", "2507.00898"
    cost = "1"
    published: ClassVar[dict[str, dict[str, Any]]] = {"norm": {"instructblip": False, "other": True}}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("layer", self.layer, low=0)
        check_number("gamma", self.gamma, low=0, high=2)
        check_number("alpha1", self.alpha1, low=0)
        check_number("alpha2", self.alpha2, low=0)
        check_number("beta", self.beta, low=0, high=1)
        if self.norm not in (True, False, None):
            raise IavaError(f"norm is {self.norm!r}: it must be true or false")

    def attention_hook(
        self, model: PreTrainedModel, is_image: torch.Tensor, main_rows: int, step: int
    ) -> AbstractContextManager[None]:
        layers = model.get_decoder().config.num_hidden_layers
        if self.layer >= layers - 1:
            raise IavaError(f"layer is {self.layer}, but the model has {layers} layers: use 0 to {layers - 2}")

        def give(call: AttentionCall) -> torch.Tensor:
            seen = call.scores[:, 0] > -math.inf
            return call.mixed(textual(call.weights(call.scores), call.at_keys(is_image) & seen, seen))

        assert self.norm is not None
        return layer_skip_logits(model, self.layer, give, residual=RESIDUAL, share=SHARE, norm=self.norm)

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        text = contrast_logits[0]
        distance = (main.softmax(dim=-1) - text.softmax(dim=-1)).abs().sum(dim=-1, keepdim=True)
        return torch.where(distance < self.gamma, main + self.alpha1 * text, mix(main, text, self.alpha2))


def textual(weights: torch.Tensor, image: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Attention with the outliers of each kind at zero, and so all heads whose TVER lies below their mean.

    Args:
        weights: (B, heads, K) attention of one token.
        image: (B, K) bool, True at image tokens.
        seen: (B, K) bool, True at all tokens that may be seen.
    """
    text = (seen.cumsum(dim=1) > 1) & seen & ~image
    # Text and image at once: (2, B, 1, K).
    kinds = torch.stack([text, image])[:, :, None]
    of_text, of_image = _outliers(weights, kinds)
    weights = weights.masked_fill(of_text | of_image, 0.0)
    entropy = _entropy(weights, kinds)
    # A head that looks at nothing of a kind: as if at one token of text, or at all of an endless image.
    ratio = entropy[0].nan_to_num(nan=0.0) / entropy[1].nan_to_num(nan=math.inf)
    below = ratio < ratio.mean(dim=1, keepdim=True)
    return weights.masked_fill(below[..., None], 0.0)


def _outliers(weights: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    count = kinds.sum(dim=-1, keepdim=True)
    mean = (weights * kinds).sum(dim=-1, keepdim=True) / count
    variance = ((weights - mean).square() * kinds).sum(dim=-1, keepdim=True) / (count - 1)
    return kinds & (weights > mean + variance.sqrt())


def _entropy(weights: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    of_kind = weights * kinds
    shares = of_kind / of_kind.sum(dim=-1, keepdim=True)
    return -(shares * (shares + 1e-6).log()).sum(dim=-1)
