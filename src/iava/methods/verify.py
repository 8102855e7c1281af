"""Controls that ask the model about its own caption. An answer takes several calls of `generate`.

Only a benchmark knows which things a caption names, so `iava.evaluation.verified` makes the calls.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.generation.utils import GenerateOutput

from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole
from iava.methods.controls import Sample
from iava.methods.controls_length import EndBias

Margins = Mapping[str, float]
"""Thing -> logit of yes minus logit of no in the model's answer to whether it is in the image."""


@dataclass(eq=False)
class SelfChecked(Method):
    """A control that drafts captions, and asks the model POPE's question about each thing that they name."""

    several_calls = True
    control = True

    @property
    def drafts(self) -> int:
        """How many captions are drafted."""
        return 1

    @abstractmethod
    def drafting(self) -> Method:
        """How they are decoded."""

    @abstractmethod
    def choice(self, drafts: Sequence[Sequence[str]], margins: Margins) -> tuple[int, list[str]]:
        """Which draft is taken, and what it names in the end.

        Args:
            drafts: the things that each draft names, in its order, as often as it names them.
            margins: of every thing that a draft names.
        """

    def __call__(self, model: PreTrainedModel, input_ids: torch.Tensor, **loop: Any) -> GenerateOutput | torch.Tensor:
        raise IavaError(
            f"{self.name} asks about the things that a caption names, which only a benchmark of captions knows: "
            "use iava eval chair"
        )


@dataclass(eq=False)
class Verify(SelfChecked):
    """A greedy caption without the things that the model itself denies.

    The model is asked POPE's question about each thing that its caption names. A thing stays if the margin of yes over
    no is above the threshold. The caption's text stays as it is; what counts is the list of its things.

    Args:
        threshold: any finite number, in logits; 0 drops what the model answers with no.
        bias, words: of `EndBias`, with which the caption is decoded; below 0 it names more. 0 is greedy decoding.

    Raises:
        IavaError: if a number is not finite.
    """

    threshold: float = 0.0
    bias: float = 0.0
    words: str = ""
    sampling: bool | None = field(default=False, kw_only=True)

    name = title = "verify"
    cost = "1, and a question about each thing named"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("threshold", self.threshold, low=-torch.inf)
        check_number("bias", self.bias, low=-torch.inf)

    def drafting(self) -> Method:
        return EndBias(self.bias, self.words)

    def choice(self, drafts: Sequence[Sequence[str]], margins: Margins) -> tuple[int, list[str]]:
        return 0, [thing for thing in drafts[0] if margins[thing] > self.threshold]


@dataclass(eq=False)
class BestOf(SelfChecked):
    """Of several sampled captions the one that names the fewest things that the model itself denies.

    The model is asked POPE's question about each thing that a caption names, and denies it if no has the larger logit.
    Of equal captions the first is taken. Two captions cost as much as one of a method with a contrast branch, apart
    from the questions.

    Args:
        n: how many captions are sampled, at least 1.

    Raises:
        IavaError: if a setting is out of range.
    """

    n: int = 2
    sampling: bool | None = field(default=True, kw_only=True)

    name, title = "best-of", "best of n"
    cost = "n, and a question about each thing named"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("n", self.n, low=1)

    @property
    def drafts(self) -> int:
        return self.n

    def drafting(self) -> Method:
        return Sample(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)

    def choice(self, drafts: Sequence[Sequence[str]], margins: Margins) -> tuple[int, list[str]]:
        denied = [sum(margins[thing] <= 0 for thing in set(things)) for things in drafts]
        best = denied.index(min(denied))
        return best, list(drafts[best])
