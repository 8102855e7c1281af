"""The same image under another instruction, without reading the image again where that is possible.

In a causal decoder everything up to the image's last token has the same keys and values whatever the question
is. So the other instruction costs its own few tokens: they are run behind the cached prompt with the question hidden.
"""

from functools import cached_property
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.boundary import Prompt, image_mask
from iava.engine.probe import last_row, over_images


class Instruction:
    """An instruction, written as `processor`'s chat template would write it around an image.

    Args:
        processor: the model's processor; it must have a chat template.
        text: the instruction, such as "Describe this image.".
        image_token_id: the id of the model's image tokens.

    Raises:
        ValueError: if the processor has no chat template.
    """

    def __init__(self, processor: ProcessorMixin, text: str, image_token_id: int) -> None:
        if not processor.chat_template:
            raise ValueError(
                "the processor has no chat template, so a general instruction cannot be written: set "
                "processor.chat_template"
            )
        self._processor = processor
        self._text = text
        self._image_token_id = image_token_id

    @cached_property
    def tail(self) -> list[int]:
        """The tokens that follow the image when the instruction does."""
        return self._around_image("image", "text", text=self._text)[1]

    def follows_image(self, ids: list[int]) -> bool:
        """Whether the user's text comes after the last image token, inside the template.

        Args:
            ids: the tokens of one prompt, without padding.

        Raises:
            ValueError: if the prompt does not end as the template ends.
        """
        start, end = self._frame(side=1)
        last = len(ids) - ids[::-1].index(self._image_token_id)
        tail = self._letters(ids[last:])
        if not tail.endswith(end):
            raise ValueError(
                f"the prompt ends in {tail[-40:]!r} where the processor's chat template ends in {end!r}: build it with "
                "processor.apply_chat_template(..., add_generation_prompt=True)"
            )
        return tail.startswith(start) and len(tail) > len(start) + len(end)

    def before_image(self, ids: list[int]) -> list[int]:
        """The prompt with the instruction in place of a text that comes before the image.

        Args:
            ids: the tokens of one prompt, without padding.

        Raises:
            ValueError: if the text cannot be told from the template around it.
        """
        start, end = self._frame(side=0)
        first = ids.index(self._image_token_id)
        head = self._letters(ids[:first])
        if not (head.startswith(start) and head.endswith(end) and len(head) > len(start) + len(end)):
            raise ValueError(
                f"no question was found after the image, nor between {start!r} and the image: build the prompt with "
                "processor.apply_chat_template(..., add_generation_prompt=True)"
            )
        return self._around_image("text", "image", text=self._text)[0] + ids[first:]

    def _frame(self, side: int) -> tuple[str, str]:
        """What the template writes on both sides of the text, in the part before (0) or after (1) the image."""
        order = ("image", "text") if side else ("text", "image")
        # Two texts that every tokenizer of a question answerer tells apart, and that share no letter.
        one, other = (self._letters(self._around_image(*order, text=text)[side]) for text in ("yes", "no"))
        return _common(one, other), _common(one[::-1], other[::-1])[::-1]

    def _around_image(self, *order: str, text: str) -> tuple[list[int], list[int]]:
        """The tokens before the first and after the last image token of a one-turn prompt."""
        parts = [{"type": "image"} if kind == "image" else {"type": "text", "text": text} for kind in order]
        turn: Any = {"role": "user", "content": parts}
        prompt = self._processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        # Through the processor, because only it knows what it writes around an image.
        ids = self._processor(text=[prompt], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
        row = ids["input_ids"][0].tolist()
        return row[: row.index(self._image_token_id)], row[len(row) - row[::-1].index(self._image_token_id) :]

    def _letters(self, ids: list[int]) -> str:
        """Text without spaces: tokens may or may not carry the space between the text and the template."""
        return "".join(self._processor.tokenizer.decode(ids).split())


def attention_under(prompt: Prompt, instruction: Instruction) -> torch.Tensor:
    """The attention to the image of the last token of the same prompts with another instruction.

    Args:
        prompt: what the decoder read; its cache is used and left as it was.
        instruction: what to ask instead.

    Returns:
        (B, L, heads, N) float32, as `probe.over_images` gives it.

    Raises:
        ValueError: if the user's text cannot be found in a prompt.
    """
    rows = [ids[mask.bool()].tolist() for ids, mask in zip(prompt.input_ids, prompt.attention_mask, strict=True)]
    after_image = [instruction.follows_image(ids) for ids in rows]
    if all(after_image) and _is_causal(prompt):
        return _behind_prefix(prompt, instruction.tail)
    last = [len(ids) - ids[::-1].index(prompt.model.config.image_token_id) for ids in rows]
    others = [
        ids[:end] + instruction.tail if after else instruction.before_image(ids)
        for ids, end, after in zip(rows, last, after_image, strict=True)
    ]
    return _from_the_start(prompt.model, others, prompt.images)


def _is_causal(prompt: Prompt) -> bool:
    """Whether what came before the question cannot depend on the question.

    A decoder that is given the plain padding mask makes a causal one of it; an outer model that wants the prompt to
    see itself both ways hands its decoder a ready four-dimensional mask. (So does `generate` with a static cache,
    which could not be cropped either.)
    """
    mask = prompt.inputs["attention_mask"]
    return mask is None or (isinstance(mask, torch.Tensor) and mask.dim() == 2)


def _behind_prefix(prompt: Prompt, tail: list[int]) -> torch.Tensor:
    """Runs `tail` behind the cached prompts, each seeing only its prefix up to the image's last token."""
    batch, length = prompt.input_ids.shape
    device = prompt.input_ids.device
    columns = torch.arange(length, device=device)
    last_image = (prompt.is_image * columns).amax(dim=1, keepdim=True)
    prefix = prompt.attention_mask.bool() & (columns <= last_image)
    ids = torch.tensor(tail, device=device).expand(batch, -1)
    positions = prompt.inputs["position_ids"].expand(batch, -1).gather(1, last_image)
    with last_row(prompt.model) as rows:
        prompt.model.get_decoder()(
            inputs_embeds=prompt.model.get_input_embeddings()(ids),
            attention_mask=torch.cat([prefix, torch.ones_like(ids, dtype=torch.bool)], dim=1).long(),
            position_ids=positions + 1 + torch.arange(len(tail), device=device),
            past_key_values=prompt.cache,
            use_cache=True,
        )
    prompt.cache.crop(-len(tail))
    return over_images(rows, prompt.is_image)


def _from_the_start(model: PreTrainedModel, prompts: list[list[int]], images: dict[str, Any]) -> torch.Tensor:
    """Runs whole prompts, left padded, over the given images."""
    length = max(map(len, prompts))
    device = model.device
    ids = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, length - len(prompt) :] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with last_row(model) as rows:
        model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=1,
            **images,
        )
    return over_images(rows, image_mask(model, ids))


def _common(one: str, other: str) -> str:
    """The letters with which both begin."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]
