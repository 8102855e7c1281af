"""IAVA with other selection rules, for studies. A rule that wins becomes a setting of IAVA."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.probe import mean_attention
from iava.engine.prompt import Prompt
from iava.methods.adaptive import gap, half, otsu, steady
from iava.methods.iava import IAVA
from iava.methods.select import above_mean, criteria, within

RULES = {"otsu": otsu, "gap": gap, "half": half}
"""Rules that find a threshold in each row of attention."""


class RuleSelection(IAVA):
    """IAVA whose `top_i="auto"` and `lam="auto"` use another rule. The rule is also the recorded name.

    Args:
        rule: a key of `RULES`.
        settings: of IAVA.
    """

    def __init__(self, rule: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.name = self.rule = rule

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"rule": self.rule}

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        top_i, lam_row = criteria(general, query, top_i=self.top_i, lam=self._lam, valid=valid, rule=RULES[self.rule])
        return within(general, query, top_i, lam_row, valid)


class MeanGeneral(IAVA):
    """IAVA whose general attention is the mean over several general instructions.

    Args:
        name: the recorded name.
        generals: the general instructions.
        settings: of IAVA. `general` has no effect.
    """

    def __init__(self, name: str, generals: Sequence[str], **settings: Any) -> None:
        super().__init__(**{**settings, "general": generals[0]})
        self.name = name
        self.generals = list(generals)
        self._each: list[IAVA] = []

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"general": self.generals}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        bound = super().bind(model, processor)
        each = [IAVA(general=general, qformer=self.qformer) for general in self.generals]
        bound._each = [one.bind(model, processor) for one in each]
        return bound

    def _under_general(self, prompt: Prompt) -> torch.Tensor:
        return self._under_each(prompt).mean(dim=0)

    def _under_each(self, prompt: Prompt) -> torch.Tensor:
        """(K, B, L, heads, N) attention under each of the K general instructions."""
        return torch.stack([one._under_general(prompt) for one in self._each])


class StableDrop(MeanGeneral):
    """Selects tokens whose mean drop exceeds its standard deviation over general instructions. Replaces `top_i`.

    Args:
        generals: at least 2 general instructions.
        settings: of IAVA. `general` and `top_i` have no effect.
    """

    def __init__(self, generals: Sequence[str], **settings: Any) -> None:
        super().__init__("steady", generals, **{**settings, "top_i": 1.0})

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        each = torch.stack([mean_attention(one, self.layers) for one in self._under_each(prompt)])
        _, lam = criteria(general, query, top_i=1.0, lam=self._lam, valid=valid)
        return valid & steady(each - query, 1.0) & above_mean(general, lam, valid)
