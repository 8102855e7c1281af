"""An instruction in place of a prompt's question, as the processor's chat template writes it."""

from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image
from transformers import ProcessorMixin

from iava.engine.edit import Edit
from iava.errors import IavaError

# What processors made of texts around a blank image: every method of every question asks for the same few.
_written_by: WeakKeyDictionary[ProcessorMixin, dict[str, dict[str, Any]]] = WeakKeyDictionary()


_REMEMBERED = 64


class Instruction:
    """An instruction, written as `processor`'s chat template would write it around an image.

    Args:
        processor: the model's processor; it must have a chat template, or put the image before any text by itself
            (InstructBLIP, BLIP-2, PaliGemma).
        text: the instruction, such as "Describe this image.".
        image_token_id: the id of the model's image tokens.

    Raises:
        IavaError: if the processor has no chat template.
    """

    def __init__(self, processor: ProcessorMixin, text: str, image_token_id: int) -> None:
        self._processor = processor
        self._text = text
        self._image_token_id = image_token_id
        self._frames: dict[int, tuple[str, str]] = {}
        if not processor.chat_template and not self._puts_the_image_itself():
            raise IavaError(
                "the processor has no chat template, so a general instruction cannot be written: set "
                "processor.chat_template"
            )

    @cached_property
    def tail(self) -> list[int]:
        """The tokens that follow the image when the instruction does."""
        return self._around_image("image", "text", text=self._text)[1]

    def follows_image(self, ids: list[int]) -> bool:
        """Whether the user's text comes after the last image token, inside the template.

        Args:
            ids: the tokens of one prompt, without padding.

        Raises:
            IavaError: if the prompt does not end as the template ends.
        """
        start, end = self._frame(side=1)
        last = len(ids) - ids[::-1].index(self._image_token_id)
        tail = self._letters(ids[last:])
        if not tail.endswith(end):
            raise IavaError(
                f"the prompt ends in {tail[-40:]!r} where the processor's chat template ends in {end!r}: build it with "
                "processor.apply_chat_template(..., add_generation_prompt=True)"
            )
        return tail.startswith(start) and len(tail) > len(start) + len(end)

    def edit(self, ids: list[int]) -> Edit:
        """What puts this instruction in the place of a prompt's text.

        Args:
            ids: the tokens of the prompt, without padding.

        Raises:
            IavaError: if the text cannot be told from the template around it.
        """
        if self.follows_image(ids):
            return Edit(len(ids) - ids[::-1].index(self._image_token_id), len(ids), self.tail)
        return Edit(0, ids.index(self._image_token_id), self.before_image(ids))

    def before_image(self, ids: list[int]) -> list[int]:
        """What stands before the image with the instruction in place of the text that is there.

        Args:
            ids: the tokens of one prompt, without padding.

        Raises:
            IavaError: if the text cannot be told from the template around it.
        """
        start, end = self._frame(side=0)
        first = ids.index(self._image_token_id)
        head = self._letters(ids[:first])
        if not (head.startswith(start) and head.endswith(end) and len(head) > len(start) + len(end)):
            raise IavaError(
                f"no question was found after the image, nor between {start!r} and the image: build the prompt with "
                "processor.apply_chat_template(..., add_generation_prompt=True)"
            )
        return self._around_image("text", "image", text=self._text)[0]

    def before_text(self, ids: list[int]) -> "Instruction":
        """This instruction, and behind it the text of a prompt.

        Args:
            ids: the tokens of the prompt, without padding.

        Raises:
            IavaError: if the text cannot be told from the template around it.
        """
        both = Instruction(self._processor, f"{self._text} {self._text_of(ids)}", self._image_token_id)
        both._frames = self._frames
        return both

    def _text_of(self, ids: list[int]) -> str:
        """The user's text in a prompt, without the template around it."""
        side = int(self.follows_image(ids))
        part = (
            ids[len(ids) - ids[::-1].index(self._image_token_id) :] if side else ids[: ids.index(self._image_token_id)]
        )
        text = str(self._processor.tokenizer.decode(part, clean_up_tokenization_spaces=False))
        start, end = self._frame(side)
        # The template's letters are known without its spaces.
        for _ in start:
            text = text.lstrip()[1:]
        for _ in end:
            text = text.rstrip()[:-1]
        return text.strip()

    def _frame(self, side: int) -> tuple[str, str]:
        """What the template writes on both sides of the text, in the part before (0) or after (1) the image."""
        if side not in self._frames:
            order = ("image", "text") if side else ("text", "image")
            # Two texts that every tokenizer of a question answerer tells apart, and that share no letter.
            one, other = (self._letters(self._around_image(*order, text=text)[side]) for text in ("yes", "no"))
            self._frames[side] = _common(one, other), _common(one[::-1], other[::-1])[::-1]
        return self._frames[side]

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What the processor makes of the instruction beside an image; (1, ...) each."""
        return self._written("image", "text", text=self._text)

    def _puts_the_image_itself(self) -> bool:
        try:
            return bool((self.inputs["input_ids"] == self._image_token_id).any())
        except ValueError:
            return False

    def _around_image(self, *order: str, text: str) -> tuple[list[int], list[int]]:
        """The tokens before the first and after the last image token of a one-turn prompt."""
        row = self._written(*order, text=text)["input_ids"][0].tolist()
        return row[: row.index(self._image_token_id)], row[len(row) - row[::-1].index(self._image_token_id) :]

    def _written(self, *order: str, text: str) -> dict[str, Any]:
        if self._processor.chat_template:
            parts = [{"type": "image"} if kind == "image" else {"type": "text", "text": text} for kind in order]
            turn: Any = {"role": "user", "content": parts}
            text = self._processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        written = _written_by.setdefault(self._processor, {})
        if text not in written:
            # Through the processor, because only it knows what it writes around an image.
            made = self._processor(text=[text], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
            # Prompts of questions come by, too, once each.
            if len(written) == _REMEMBERED:
                del written[next(iter(written))]
            written[text] = {key: value for key, value in made.items() if key != "pixel_values"}
        return written[text]

    def _letters(self, ids: list[int]) -> str:
        """Text without spaces: tokens may or may not carry the space between the text and the template."""
        return "".join(self._processor.tokenizer.decode(ids).split())


def _common(one: str, other: str) -> str:
    """The letters with which both begin."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]
