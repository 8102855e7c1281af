"""ICD: contrast with the same image under a disturbed instruction.

Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding (arXiv 2403.18715,
Findings of ACL 2024). Checked against the authors' code: the prefix, its place, the contrast, the constraint.
"""

from dataclasses import KW_ONLY, dataclass, field

from transformers import ProcessorMixin

from iava.engine.branch import Branch
from iava.engine.edit import Edits, rewritten
from iava.engine.images.qformer import features_under
from iava.engine.prompt import Prompt
from iava.engine.text.instruction import EditablePrompt, editable
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_choice, check_contrast, check_text

PLACES = ("question", "system", "image", "qformer", "qformer-alone")
"""Where the role may stand; see `ICD`."""


@dataclass(eq=False)
class ICD(Method):
    """Instruction contrastive decoding (arXiv 2403.18715).

    In the contrast branch a role stands in the prompt. The rest of the prompt is the same. The branch's logits are
    subtracted: (1 + alpha) l - alpha l_disturbed, where the undisturbed probability is at least beta times its maximum.

    Args:
        processor: the model's processor, which writes the disturbed instruction; it must have a chat template.
        prefix: the role. The default is one of the authors' five; the others are in their code.
        place: where the role stands. "question": before the question, in the text that a Q-Former reads too (the code
            of SID). "system": in place of the system prompt, or where one would stand (the authors' code for LLaVA).
            "image": before the image, on a line of its own. "qformer": before the question, for the Q-Former only.
            "qformer-alone": the Q-Former reads the role and no question (both in the authors' code for InstructBLIP).
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.

    Raises:
        IavaError: if a setting is out of range; while decoding, if a prompt does not have that place, or it cannot be
            told.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.ICD(processor), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    processor: ProcessorMixin | None = field(default=None, repr=False)
    _: KW_ONLY
    prefix: str = "You are a confused objects detector to provide a fuzzy overview or impression of the image."
    place: str = "question"
    alpha: float = 1.0
    beta: float = 0.1

    name, paper = "icd", "2403.18715"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("prefix", self.prefix, 'a role such as "You are a confused objects detector."')
        check_choice("place", self.place, PLACES)
        check_contrast(self.alpha, self.beta)

    def branches(self, prompt: Prompt) -> list[Branch]:
        if self.processor is None:
            raise IavaError("ICD has no processor to write the disturbed instruction with: use ICD(processor)")
        prompts = editable(prompt, self.processor)
        edits = [self._edits(one) for one in prompts]
        features = features_under(prompt, edits, self.processor)
        if self.place.startswith("qformer"):
            if features is None:
                raise IavaError(f"place is {self.place!r}, but the model has no Q-Former that reads the question")
            edits = [[] for _ in prompts]
        return [rewritten(prompt, edits, features)]

    def _edits(self, prompt: EditablePrompt) -> Edits:
        role = self.prefix.strip()
        if self.place == "qformer-alone":
            return prompt.replaced(role)
        return prompt.prefixed(role, "question" if self.place == "qformer" else self.place)
