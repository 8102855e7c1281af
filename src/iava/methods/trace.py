"""What a decoding run leaves behind for who wants to know."""

from dataclasses import dataclass, field

import torch


@dataclass
class Trace:
    """What a caller wants to know of one decoding run; handed in, filled, never kept by the method.

    Args:
        top: how many candidates to keep at each step; 0 keeps none.
        logits: (B, V) float32, the first step's combined logits before the plausibility mask.
        steps: a step's candidates: for "full", "negative" and "combined" (the plausible ones) the (B, top) ids and
            probabilities.
        reading: what the method read off the prompt, by name.
    """

    top: int = 0
    logits: torch.Tensor | None = None
    steps: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=list)
    reading: dict[str, torch.Tensor] = field(default_factory=dict)

    def add_step(self, **logits: torch.Tensor | None) -> None:
        if self.top:
            self.steps.append({k: _candidates(v, self.top) for k, v in logits.items() if v is not None})


def _candidates(logits: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    probabilities, ids = logits.softmax(dim=-1).topk(min(top, logits.shape[-1]))
    return ids, probabilities
