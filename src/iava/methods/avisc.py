"""AvisC: contrast with an image of which only the tokens that draw most attention are left.

Don't Miss the Forest for the Trees: Attentional Vision Calibration for Large Vision Language Models (arXiv 2405.17820,
Findings of ACL 2025). Checked against the authors' code: choice of layers, threshold, masking, contrast, constraint.
"""

import copy
import math
from typing import Any, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt, pack
from iava.engine.negatives import zeros
from iava.engine.probe import over_images
from iava.methods.base import Method, mix
from iava.methods.checks import check_number
from iava.methods.select import above_mean
from iava.methods.trace import Trace

PUBLISHED_ALPHA = {"llava": 2.5, "instructblip": 3.0}
"""The settings of the paper, by Hugging Face model type; other types take 1, the default of the authors' code."""


class AvisC(Method):
    """Attentional vision calibration (arXiv 2405.17820, section 3).

    Blind tokens are image tokens with far more attention than the others. The second branch sees only those, the
    embeddings of the others are zero; what it says is subtracted: (1 + alpha) l - alpha l_blind, where the image's own
    probability is at least beta times its maximum. They are found once, by the attention of the prompt's last token.

    Args:
        gamma: above 0 and at most 1; only the layers with most attention to the image count, as many as it takes to
            reach this share of all layers' attention to it.
        lam: blind is what lies above mean + lam * std of the image's tokens, averaged over those layers and all heads.
        alpha: strength of the contrast, at least 0. None takes the published value: 2.5 for LLaVA, 3 for
            InstructBLIP, 1 for others.
        beta: plausibility, 0 to 1; see `contrast`.
        model: InstructBLIP and BLIP-2 hand decoding to their language model: for them this is the vision-language
            model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> model.generate(**inputs, custom_generate=AvisC(), max_new_tokens=64)
    """

    name, paper = "avisc", "2405.17820"

    def __init__(
        self,
        *,
        gamma: float = 0.5,
        lam: float = 1.0,
        alpha: float | None = None,
        beta: float = 0.1,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_number("gamma", gamma, low=0, high=1, above=True)
        check_number("lam", lam, low=-math.inf)
        if alpha is not None:
            check_number("alpha", alpha, low=0)
        check_number("beta", beta, low=0, high=1)
        self.gamma = gamma
        self.lam = lam
        self.alpha = alpha
        self.beta = beta
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "lam": self.lam, "alpha": self.alpha, "beta": self.beta}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        bound = super().bind(model, processor)
        bound.alpha = self._alpha_for(model)
        return bound

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        attention = over_images(prompt.rows, prompt.is_image)
        _, valid = pack(prompt.is_image)
        layers = most_attentive(attention, self.gamma)
        mean = (attention.mean(dim=2) * layers[..., None]).sum(dim=1) / layers.sum(dim=1, keepdim=True)
        blind = above_mean(mean, self.lam, valid)
        if trace is not None:
            trace.reading = {
                "att_query": mean,
                "layers_query": attention.mean(dim=2),
                "selected": blind,
                "valid": valid,
            }
        return zeros(prompt, blind)

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        assert self.alpha is not None
        return mix(logits, negative, self.alpha)

    def __call__(self, model: PreTrainedModel, input_ids: torch.Tensor, **loop: Any) -> GenerateOutput | torch.Tensor:
        bound = copy.copy(self)
        bound.alpha = self._alpha_for(self.model or model)
        return super(AvisC, bound).__call__(model, input_ids, **loop)

    def _alpha_for(self, model: PreTrainedModel) -> float:
        return PUBLISHED_ALPHA.get(model.config.model_type, 1.0) if self.alpha is None else self.alpha


def most_attentive(attention: torch.Tensor, gamma: float) -> torch.Tensor:
    """The fewest layers that hold a share gamma of a row's attention to the image.

    Args:
        attention: (B, L, heads, N) to each image token; 0 where a row has fewer than N.
        gamma: above 0 and at most 1.

    Returns:
        (B, L) bool, at least one layer a row.
    """
    share = attention.sum(dim=(2, 3))
    share = share / share.sum(dim=1, keepdim=True)
    largest, order = share.sort(dim=1, descending=True, stable=True)
    # A layer is needed if those before it do not reach gamma.
    needed = largest.cumsum(dim=1) - largest < gamma
    return torch.zeros_like(needed).scatter(1, order, needed)
