"""AvisC: contrast with an image of which only the tokens that draw most attention are left.

Don't Miss the Forest for the Trees: Attentional Vision Calibration for Large Vision Language Models (arXiv 2405.17820,
Findings of ACL 2025). Checked against the authors' code: choice of layers, threshold, masking, contrast, constraint.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from iava.engine.branch import Branch
from iava.engine.negatives import zeros
from iava.engine.probe import over_images
from iava.engine.prompt import Prompt
from iava.methods.base import Method
from iava.methods.checks import check_number
from iava.methods.select import above_mean


@dataclass(eq=False, kw_only=True)
class AvisC(Method):
    """Attentional vision calibration (arXiv 2405.17820, section 3).

    Blind tokens are image tokens with far more attention than the others. The contrast branch sees only those; the
    embeddings of the others are zero. Its logits are subtracted: (1 + alpha) l - alpha l_blind, where the main branch's
    probability is at least beta times its maximum. Blind tokens are found once, by the attention of the prompt's last
    token.

    Args:
        gamma: above 0 and at most 1; only the layers with most attention to the image count, as many as it takes to
            reach this share of all layers' attention to it.
        lam: any finite number; blind is what lies above mean + lam * std of the image's tokens, averaged over those
            layers and all heads.
        alpha: strength of the contrast, at least 0. None takes the published value: 2.5 for LLaVA, 3 for
            InstructBLIP; for other types 1, the default of the authors' code.
        beta: plausibility, 0 to 1; see `contrast`.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.AvisC(lam=1), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    gamma: float = 0.5
    lam: float = 1.0
    alpha: float | None = None
    beta: float = 0.1

    name, paper = "avisc", "2405.17820"
    published: ClassVar[dict[str, dict[str, Any]]] = {"alpha": {"llava": 2.5, "instructblip": 3.0, "other": 1.0}}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("gamma", self.gamma, low=0, high=1, above=True)
        check_number("lam", self.lam, low=-math.inf)
        if self.alpha is not None:
            check_number("alpha", self.alpha, low=0)
        check_number("beta", self.beta, low=0, high=1)

    @property
    def own_images(self) -> int:
        return 1

    def branches(self, prompt: Prompt) -> list[Branch]:
        attention = over_images(prompt.rows, *prompt.images)
        _, valid = prompt.images
        layers = most_attentive(attention, self.gamma)
        mean = (attention.mean(dim=2) * layers[..., None]).sum(dim=1) / layers.sum(dim=1, keepdim=True)
        blind = above_mean(mean, self.lam, valid)
        prompt.reading = {
            "att_query": mean,
            "layers_query": attention.mean(dim=2),
            "selected": blind,
            "valid": valid,
        }
        return [zeros(prompt, blind)]


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
