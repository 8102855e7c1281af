"""Sampling from a generator that belongs to one call."""

from typing import Any

import torch
from transformers import StoppingCriteria
from transformers.generation import LogitsProcessor


class Draw(LogitsProcessor):
    """Draws each token itself, and leaves it as the only choice of a loop that takes the best token.

    The loop's own sampling would draw from torch's global generator, which all threads share. Put it behind all other
    processors, and `restored` before all stopping criteria: then `scores` are those that the token was drawn from.

    Args:
        generator: on the device of the logits.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._step: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = torch.multinomial(scores.softmax(dim=-1), 1, generator=self._generator)
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
