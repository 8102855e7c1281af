"""An answer, and the explanation of how the method arrived at it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from iava.deprecated import warn_of_alias


@dataclass(frozen=True)
class CrossAttention:
    """Cross-attention of a Q-Former's N queries over the P patches of the vision tower.

    Args:
        general: (N, P) under the general instruction, mean over heads and layers. A row sums to at most 1.
        query: (N, P) under the question. Equal to `general` where the Q-Former does not read the instruction.
        boxes: (P, 4) float (x0, y0, x1, y1), each patch's rectangle in pixels of the original image.
    """

    general: torch.Tensor
    query: torch.Tensor
    boxes: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Attention maps, selection and candidate tokens of one answer, with N image tokens and L decoder layers.

    A field is None where the method has no such thing.

    Args:
        att_general: (N,) attention of the last prompt token under the general instruction, over the chosen layers.
        att_query: (N,) the same under the question.
        layers_general: (L, N) the same for each decoder layer, mean over heads.
        layers_query: (L, N).
        selected: (N,) bool, the irrelevant image tokens, which the contrast branch keeps.
        boxes: (N, 4) float (x0, y0, x1, y1), each token's rectangle in pixels of the original image (as
            `read_image` returns it). None for models whose image tokens are not patches of the image.
        steps: one dict for each generated token, with "full", "combined" and, given a contrast branch, "negative".
            Each lists the ten most probable tokens as {"id", "text", "probability"}. "combined" leaves out the tokens
            that the plausibility constraint removes.
        cross_attention: the Q-Former's cross-attention, in models whose image tokens are a Q-Former's queries.
        top_i: the largest number of tokens that could be selected.
        lam: the attention threshold, in standard deviations above the mean.
        heads_general: (L, heads, N) `layers_general` before the mean over heads.
        heads_query: (L, heads, N).
    """

    att_general: torch.Tensor | None
    att_query: torch.Tensor | None
    layers_general: torch.Tensor | None
    layers_query: torch.Tensor | None
    selected: torch.Tensor | None
    boxes: np.ndarray | None
    steps: list[dict[str, list[dict[str, Any]]]]
    cross_attention: CrossAttention | None = None
    top_i: int | None = None
    lam: float | None = None
    heads_general: torch.Tensor | None = None
    heads_query: torch.Tensor | None = None

    @property
    def looks(self) -> CrossAttention | None:
        """The former name of `cross_attention`."""
        warn_of_alias("Explanation.looks", "Explanation.cross_attention")
        return self.cross_attention


@dataclass(frozen=True)
class Answer:
    """An answer with its method, cost and explanation.

    Args:
        text: without special tokens.
        tokens: the new token ids, without the end token.
        method: the method's command-line name.
        settings: the method's parameters.
        seconds: wall-clock time from the image to the text. Answers of one batch share its time equally.
        logits: (V,) float32, the first step's combined logits before the plausibility constraint.
        explanation: if it was asked for.
        selected: share of the image tokens that the method selected. None where it selects none.
        generation: settings of `generate` that the call asked for beyond the method's.
        note: what else is to be known, such as that there was no image; None where there is nothing.

    Examples:
        >>> answer = lvlm.ask(image, "Is there a fork in the image?", explain=True)
        >>> answer.text, answer.method
        ('Yes.', 'iava')
        >>> answer.explanation.selected.shape
        torch.Size([144])
    """

    text: str
    tokens: list[int]
    method: str
    settings: dict[str, Any]
    seconds: float
    logits: torch.Tensor = field(repr=False)
    explanation: Explanation | None = None
    selected: float | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    note: str | None = None
