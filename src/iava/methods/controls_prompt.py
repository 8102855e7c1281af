"""The control that asks for "yes" in words."""

from dataclasses import dataclass, field

import torch
from transformers import ProcessorMixin

from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_text
from iava.methods.words import says


@dataclass(eq=False)
class PromptBias(Method):
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
    control = True
    paper = "2504.10020"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("hint", self.hint, 'a request such as "Answer yes whenever possible."')
        self.hint = self.hint.strip()

    def reword(self, question: str) -> str:
        return f"{question} {self.hint}"

    def check_prompts(self, input_ids: torch.Tensor) -> None:
        if self.processor is None:
            raise IavaError("PromptBias has no processor to read the prompt with: use PromptBias(processor=processor)")
        for row, ids in enumerate(input_ids):
            if not says(ids, self.hint, self.processor.tokenizer):
                raise IavaError(
                    f"prompt {row} of {len(input_ids)} does not say {self.hint!r}: write it behind the question, or "
                    "let iava.load(...).ask do so"
                )
