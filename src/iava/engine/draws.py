"""Sampling from generators that belong to one call."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation import LogitsProcessor


class Draw(LogitsProcessor):
    """Draws each token itself, and leaves it as the only choice of a loop that takes the best token.

    The loop's own sampling would draw from torch's global generator, which all threads share. Put it behind all other
    processors, and `restored` before all stopping criteria: then `scores` are those that the token was drawn from.

    Args:
        generators: on the device of the logits: one for all rows, or one for each prompt, whose rows stand together.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators
        self._step: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = scores.softmax(dim=-1).chunk(len(self._generators))
        pairs = zip(rows, self._generators, strict=True)
        token = torch.cat([torch.multinomial(some, 1, generator=generator) for some, generator in pairs])
        choice = torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
        self._step = scores, choice
        return choice

    @property
    def restored(self) -> StoppingCriteria:
        """Stops nothing; puts the scores back, in place, once the loop has taken the token."""
        return _Restored(self)

    def restore(self) -> None:
        if self._step is not None:
            scores, choice = self._step
            choice.copy_(scores)


class _Restored(StoppingCriteria):
    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._draw.restore()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
