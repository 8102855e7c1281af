"""A prompt whose conversation is known: another text in the question's place is rendered, not searched for."""

from collections.abc import Sequence
from typing import Any

from iava.engine.edit import Edit
from iava.engine.text.instruction import WrittenPrompt, edits_between
from iava.errors import IavaError
from iava.lvlm.conversation import Conversation, prompt_text
from iava.lvlm.inputs import Inputs


class RenderedPrompt:
    """One prompt with its conversation; edits it as `engine.text.instruction.WrittenPrompt` does.

    Both conversations are rendered and tokenized, so the edits are exact for any chat template: for those, too, that
    write a system prompt into the user's turn.

    Args:
        model: the vision-language model.
        processor: its processor.
        inputs: with which the prompt was made.
        conversation: what was rendered.
        ids: the tokens of the prompt, without padding.
    """

    def __init__(self, model: Any, processor: Any, inputs: Inputs, conversation: Conversation, ids: list[int]) -> None:
        self._image_token_id: int = model.config.image_token_id
        self._processor = processor
        self._inputs = inputs
        self._conversation = conversation
        self._ids = ids

    @property
    def question(self) -> str:
        """The first text of the last user turn."""
        return self._conversation.question

    def replaced(self, text: str) -> list[Edit]:
        """See `WrittenPrompt.replaced`."""
        return self._edits(self._conversation.asking(text))

    def prefixed(self, text: str, place: str = "question") -> list[Edit]:
        """See `WrittenPrompt.prefixed`."""
        if place == "question":
            return self._edits(self._conversation.prefixed(text))
        if place == "system":
            edits = self._edits(self._conversation.with_system(text))
            if not edits and text not in self._conversation.texts:
                raise IavaError('the chat template leaves the system prompt out: use place="question"')
            return edits
        # A template may put images first whatever the order of the parts.
        return WrittenPrompt(self._processor, self._ids, self._image_token_id).prefixed(text, place)

    def _edits(self, other: Conversation) -> list[Edit]:
        ids = self._inputs.ids(prompt_text(self._processor, other), other.images)
        edits = edits_between(self._ids, ids, self._image_token_id)
        if edits is None:
            raise IavaError("the chat template shows other images where the question is another")
        return edits


def rendered_prompts(
    model: Any, processor: Any, inputs: Inputs, conversations: Sequence[Conversation], batch: dict[str, Any]
) -> list[RenderedPrompt]:
    """The prompts of a batch, for `conversations=` of a method.

    Args:
        model: the vision-language model.
        processor: its processor.
        inputs: with which the batch was made.
        conversations: what was rendered, one for each row.
        batch: what `Inputs.of` made of them.
    """
    rows = zip(conversations, batch["input_ids"], batch["attention_mask"], strict=True)
    return [RenderedPrompt(model, processor, inputs, one, ids[mask.bool()].tolist()) for one, ids, mask in rows]
