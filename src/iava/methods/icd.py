"""ICD: contrast with the same image under a disturbed instruction.

Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding (arXiv 2403.18715,
Findings of ACL 2024). Checked against the authors' code: the prefix, the contrast, the constraint.
"""

from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.boundary import Prompt
from iava.engine.prefix import Instruction, prefixed, rewritten
from iava.engine.qformer import features_under
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_contrast, check_text
from iava.methods.trace import Trace


class ICD(Method):
    """Instruction contrastive decoding (arXiv 2403.18715).

    In the second branch a role stands before the question, in the text that a Q-Former reads too (InstructBLIP), the
    rest of the prompt is the same; what it says is subtracted: (1 + alpha) l - alpha l_disturbed, where the
    undisturbed probability is at least beta times its maximum.

    Args:
        processor: the model's processor, which writes the disturbed instruction; it must have a chat template.
        prefix: the role. The default is one of the authors' five; the others are in their code.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        model: InstructBLIP and BLIP-2 hand decoding to their language model: for them this is the vision-language
            model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range; while decoding, if the question cannot be found in a prompt.

    Example:
        >>> model.generate(**inputs, custom_generate=ICD(processor), max_new_tokens=64)
    """

    name, paper = "icd", "2403.18715"

    def __init__(
        self,
        processor: ProcessorMixin | None = None,
        *,
        prefix: str = "You are a confused objects detector to provide a fuzzy overview or impression of the image.",
        alpha: float = 1.0,
        beta: float = 0.1,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_text("prefix", prefix, 'a role such as "You are a confused objects detector."')
        check_contrast(alpha, beta)
        self.processor = processor
        self.prefix = prefix
        self.alpha = alpha
        self.beta = beta
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "alpha": self.alpha, "beta": self.beta}

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        if self.processor is None:
            raise IavaError("ICD has no processor to write the disturbed instruction with: use ICD(processor)")
        role = Instruction(self.processor, self.prefix.strip(), prompt.outer.config.image_token_id)
        disturbed = prefixed(prompt, role)
        return rewritten(prompt, disturbed, features_under(prompt, *disturbed))
