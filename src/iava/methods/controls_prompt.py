"""Controls that change the words of the question."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from transformers import ProcessorMixin

from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_text
from iava.methods.words import says


@dataclass(eq=False)
class _Reworded(Method):
    """Plain decoding of a question in other words. A prompt of one's own must hold these words already."""

    control = True
    where: ClassVar[str]
    """Where a prompt of one's own says these words, for the message of an error."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What every prompt says."""

    def check_prompts(self, input_ids: torch.Tensor) -> None:
        if self.processor is None:
            name = type(self).__name__
            raise IavaError(f"{name} has no processor to read the prompt with: use {name}(processor=processor)")
        for row, ids in enumerate(input_ids):
            if not says(ids, self.words, self.processor.tokenizer):
                raise IavaError(
                    f"prompt {row} of {len(input_ids)} does not say {self.words!r}: write it {self.where}, or let "
                    "iava.load(...).ask do so"
                )


@dataclass(eq=False)
class PromptBias(_Reworded):
    """Plain decoding of a question that is followed by a request for "yes" (arXiv 2504.10020).

    This is the paper's prompt-based adjustment, in its wording. Its published code writes "Answer yes whenever
    possible."

    The question is changed before the processor reads it: `LVLM.ask` does so. A prompt of one's own, in
    `generate(custom_generate=...)`, must hold the hint already.

    Args:
        hint: what is written behind the question.
        processor: the model's processor, to check a prompt of one's own.

    Raises:
        IavaError: if the hint is blank; on decoding, if a prompt does not hold it.

    Examples:
        >>> iava.PromptBias().reword("Is there a fork in the image?")
        'Is there a fork in the image? Whenever possible, please select Yes.'
        >>> lvlm.ask(image, "Is there a fork in the image?", method=iava.PromptBias()).text
        'Yes.'
    """

    hint: str = "Whenever possible, please select Yes."
    processor: ProcessorMixin | None = field(default=None, repr=False)

    name, title = "prompt-bias", "prompt bias"
    paper = "2504.10020"
    where = "behind the question"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("hint", self.hint, 'a request such as "Answer yes whenever possible."')
        self.hint = self.hint.strip()

    def reword(self, question: str) -> str:
        return f"{question} {self.hint}"

    @property
    def words(self) -> str:
        return self.hint


@dataclass(eq=False)
class Brief(_Reworded):
    """Plain decoding of a request for a short caption, in place of the question.

    The question is changed before the processor reads it: `LVLM.ask` does so. A prompt of one's own, in
    `generate(custom_generate=...)`, must hold the request already.

    Args:
        request: what is asked in place of the question.
        processor: the model's processor, to check a prompt of one's own.

    Raises:
        IavaError: if the request is blank; on decoding, if a prompt does not hold it.
    """

    request: str = "Briefly describe this image."
    processor: ProcessorMixin | None = field(default=None, repr=False)

    name, title = "brief", "brief prompt"
    where = "in place of the question"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("request", self.request, 'a request such as "Briefly describe this image."')
        self.request = self.request.strip()

    def reword(self, question: str) -> str:
        return self.request

    @property
    def words(self) -> str:
        return self.request
