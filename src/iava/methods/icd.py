"""ICD: contrast with the same image under a disturbed instruction.

Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding (arXiv 2403.18715,
Findings of ACL 2024). Checked against the authors' code: the prefix, the contrast, the constraint.
"""

from dataclasses import KW_ONLY, dataclass, field

from transformers import ProcessorMixin

from iava.engine.branch import Branch
from iava.engine.edit import rewritten
from iava.engine.instruction import editable
from iava.engine.prompt import Prompt
from iava.engine.qformer import features_under
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_contrast, check_text


@dataclass(eq=False)
class ICD(Method):
    """Instruction contrastive decoding (arXiv 2403.18715).

    In the contrast branch a role stands before the question, in the text that a Q-Former reads too (InstructBLIP). The
    rest of the prompt is the same. The branch's logits are subtracted: (1 + alpha) l - alpha l_disturbed, where the
    undisturbed probability is at least beta times its maximum.

    Args:
        processor: the model's processor, which writes the disturbed instruction; it must have a chat template.
        prefix: the role. The default is one of the authors' five; the others are in their code.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.

    Raises:
        IavaError: if a setting is out of range; while decoding, if the question cannot be found in a prompt.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.ICD(processor), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    processor: ProcessorMixin | None = field(default=None, repr=False)
    _: KW_ONLY
    prefix: str = "You are a confused objects detector to provide a fuzzy overview or impression of the image."
    alpha: float = 1.0
    beta: float = 0.1

    name, paper = "icd", "2403.18715"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("prefix", self.prefix, 'a role such as "You are a confused objects detector."')
        check_contrast(self.alpha, self.beta)

    def branches(self, prompt: Prompt) -> list[Branch]:
        if self.processor is None:
            raise IavaError("ICD has no processor to write the disturbed instruction with: use ICD(processor)")
        edits = [one.prefixed(self.prefix.strip()) for one in editable(prompt, self.processor)]
        return [rewritten(prompt, edits, features_under(prompt, edits, self.processor))]
