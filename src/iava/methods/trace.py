"""A record of one decoding run."""

from dataclasses import dataclass, field

import torch


@dataclass
class Trace:
    """What a caller wants to know of one decoding run. The caller makes it, the run fills it, no method keeps it.

    Args:
        top: how many candidates to keep at each step; 0 keeps none.
        logits: (B, V) float32, the first step's combined logits before the plausibility constraint.
        steps: each step's candidates: for "full" (the main branch), "negative" (the first contrast branch) and
            "combined" (the plausible ones) the (B, top) ids and probabilities.
        reading: what the method read off the prompt, by name.
    """

    top: int = 0
    logits: torch.Tensor | None = None
    steps: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=list)
    reading: dict[str, torch.Tensor] = field(default_factory=dict)

    def add_step(self, **logits: torch.Tensor | None) -> None:
        if self.top:
            self.steps.append({k: _most_probable(v, self.top) for k, v in logits.items() if v is not None})


def _most_probable(logits: torch.Tensor, top: int) -> tuple[torch.Tensor, torch.Tensor]:
    probabilities, ids = logits.softmax(dim=-1).topk(min(top, logits.shape[-1]))
    return ids, probabilities
