"""What every method is: what the second branch sees, and how two rows of logits become one."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import LogitsProcessor
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt
from iava.engine.twin import decode
from iava.methods.checks import check_number


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


class Method:
    """A decoding method, passed to `model.generate(**inputs, custom_generate=method)`.

    A new method defines `name`, `settings`, `combine`, and `second` if it has a second branch.
    """

    name: ClassVar[str]
    sampling: ClassVar[bool | None] = None
    """True: always draws tokens; False: always takes the best; None: does as `generate` is told."""
    beta: float = 0.0
    """Plausibility: tokens below beta times the largest probability are ruled out; 0 rules out none."""

    def settings(self) -> dict[str, Any]:
        """The parameters, ready for JSON."""
        return {}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        """A copy with everything filled in that a model and its processor decide."""
        return self

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        """What the second branch's decoder is fed. Methods without a second branch leave this alone."""
        raise NotImplementedError

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        """One row out of two: (B, V), (B, V) -> (B, V) float32; `negative` is None without a second branch."""
        return logits

    def warpers(self) -> list[LogitsProcessor]:
        """Processors that come after `generate`'s own."""
        return []

    def __call__(
        self, model: PreTrainedModel, input_ids: torch.Tensor, *, trace: Trace | None = None, **loop: Any
    ) -> GenerateOutput | torch.Tensor:
        """What `generate` calls in place of its loop; returns what its loop returns."""
        has_second = type(self).second is not Method.second

        def combine(full: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
            combined = self.combine(full, negative, step)
            allowed = combined.masked_fill(~plausible(full, self.beta), -math.inf)
            if trace is not None:
                trace.logits = combined if step == 0 else trace.logits
                trace.add_step(full=full, negative=negative, combined=allowed)
            return allowed

        return decode(
            model,
            input_ids,
            second=partial(self.second, trace=trace) if has_second else None,
            combine=combine,
            sampling=self.sampling,
            warpers=self.warpers(),
            **loop,
        )


def contrast(logits: torch.Tensor, negative: torch.Tensor, *, alpha: float, beta: float) -> torch.Tensor:
    """Contrastive decoding with the adaptive plausibility constraint (arXiv 2503.18556, as in VCD, 2311.16922).

    (1 + alpha) * logits - alpha * negative, where softmax(logits) is at least beta times its maximum.

    Args:
        logits: (B, V), with the whole image.
        negative: (B, V), with the negative image.
        alpha: strength, at least 0; 0 ignores `negative`.
        beta: 0 to 1; 0 rules out no token, 1 leaves the most probable alone.

    Returns:
        (B, V) float32, -inf at implausible tokens. alpha=0, beta=0 returns `logits` exactly.

    Raises:
        ValueError: if alpha or beta is out of range.
    """
    check_number("alpha", alpha, low=0)
    check_number("beta", beta, low=0, high=1)
    return mix(logits, negative, alpha).masked_fill(~plausible(logits, beta), -math.inf)


def mix(logits: torch.Tensor, negative: torch.Tensor, alpha: float) -> torch.Tensor:
    """(1 + alpha) * logits - alpha * negative in float32; see `contrast`."""
    # 0 * -inf would be NaN.
    return logits.float() if alpha == 0 else (1 + alpha) * logits.float() - alpha * negative.float()


def plausible(logits: torch.Tensor, beta: float) -> torch.Tensor:
    """(B, V) bool, True where softmax(logits) is at least beta times its largest value."""
    probabilities = logits.float().softmax(dim=-1)
    return probabilities >= beta * probabilities.amax(dim=-1, keepdim=True)
