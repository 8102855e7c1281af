"""What is answered, and how it came about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Looks:
    """What a Q-Former's N queries look at: their cross-attention over the P patches of the vision tower.

    Args:
        general: (N, P) under the general instruction, mean over heads and layers; a row's sum is at most 1.
        query: (N, P) under the question; the same where the Q-Former does not read the instruction.
        boxes: (P, 4) float (x0, y0, x1, y1), each patch's rectangle in pixels of the original image.
    """

    general: torch.Tensor
    query: torch.Tensor
    boxes: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """What a method saw and weighed. N image tokens, L decoder layers; None where a method has no such thing.

    Args:
        att_general: (N,) attention of the last prompt token under the general instruction, over the chosen layers.
        att_query: (N,) the same under the question.
        layers_general: (L, N) the same for each decoder layer, mean over heads.
        layers_query: (L, N).
        selected: (N,) bool, the image tokens found irrelevant, which the second branch keeps.
        boxes: (N, 4) float (x0, y0, x1, y1), each token's rectangle in pixels of the original image (as
            `read_image` returns it); None for models whose tokens are no patches of the picture.
        steps: a dict for each generated token with "full", "combined" and, given a second branch, "negative": the
            ten most probable tokens, each {"id", "text", "probability"}; "combined" leaves out what the method rules
            out.
        looks: what the image tokens look at in models whose tokens are a Q-Former's queries.
        top_i: how many tokens could be selected, as a count.
        lam: how many standard deviations above the mean their attention had to be.
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
    looks: Looks | None = None
    top_i: int | None = None
    lam: float | None = None
    heads_general: torch.Tensor | None = None
    heads_query: torch.Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """An answer and how it came about.

    Args:
        text: without special tokens.
        tokens: the new token ids, without the end-of-sequence token.
        method: the method's command-line name.
        settings: the method's parameters.
        seconds: wall-clock time, from the image to the text; of a batch, its time shared out equally.
        logits: (V,) float32, the first step's combined logits before the plausibility mask.
        explanation: if it was asked for.
        selected: share of the image tokens that the method selected; None where it selects none.
    """

    text: str
    tokens: list[int]
    method: str
    settings: dict[str, Any]
    seconds: float
    logits: torch.Tensor
    explanation: Explanation | None = None
    selected: float | None = None
