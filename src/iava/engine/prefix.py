"""The same image under another instruction, without reading the image again where that is possible.

In a causal decoder everything up to the image's last token has the same keys and values whatever the question
is. So the other instruction costs its own few tokens: they are run behind the cached prompt with the question hidden.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from transformers import DynamicCache, ProcessorMixin

from iava.engine.boundary import Prompt, pack, run
from iava.engine.cache import before, cache_behind, parts_of
from iava.engine.probe import last_row, over_images
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


def attention_under(prompt: Prompt, instruction: Instruction, features: torch.Tensor | None = None) -> torch.Tensor:
    """The attention to the image of the last token of the same prompts with another instruction.

    The image is not read again: what the decoder is fed for it is in the prompt.

    Args:
        prompt: what the decoder read; its cache is left as it was.
        instruction: what to ask instead.
        features: (B, N, D) what the decoder is fed for the image under that instruction, where it depends on it.

    Returns:
        (B, L, heads, N) float32, as `probe.over_images` gives it.

    Raises:
        IavaError: if the user's text cannot be found in a prompt.
    """
    others = _around_images(prompt, [instruction] * len(prompt.input_ids))
    if features is None and all(head is None for head, _ in others):
        found = _once_a_beginning(prompt, instruction.tail)
        if found is not None:
            return found
    inputs, is_image = _rewritten(prompt, others, features)
    with last_row(prompt.model) as rows:
        run(prompt.model, inputs, None)
    return over_images(rows, is_image)


def prefixed(prompt: Prompt, instruction: Instruction) -> list[Instruction]:
    """For each prompt an instruction followed by what the prompt asks; see `Instruction.before_text`."""
    return [instruction.before_text(ids) for ids in _tokens(prompt)]


def rewritten(
    prompt: Prompt, instructions: Sequence[Instruction], features: torch.Tensor | None = None
) -> dict[str, Any]:
    """The same prompts with another instruction in each, as inputs that `boundary.run` takes.

    The image is not read again, and, where its keys and values are the same whatever follows it, not run again:
    the inputs are then what follows it, behind a cache, `past_key_values`.

    Args:
        prompt: what the decoder read.
        instructions: for each prompt, what to ask instead.
        features: (B, N, D) what the decoder is fed for the image under them, where it depends on them.

    Raises:
        IavaError: if the user's text cannot be found in a prompt.
    """
    others = _around_images(prompt, instructions)
    tails = [tail for _, tail in others if tail is not None]
    if features is None and len(tails) == len(others):
        # One more: a layer with a window keeps one column less than it sees.
        cache = prefix_cache(prompt, max(map(len, tails)) + 1)
        if cache is not None:
            return _behind(prompt, cache, tails)
    return _rewritten(prompt, others, features)[0]


def _tokens(prompt: Prompt) -> list[list[int]]:
    """Each prompt's tokens, without padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(prompt.input_ids, prompt.attention_mask, strict=True)]


# What stands before the image, or after it, in place of what a prompt has there; None leaves it as it is.
_Around = tuple[list[int] | None, list[int] | None]


def _around_images(prompt: Prompt, instructions: Sequence[Instruction]) -> list[_Around]:
    return [
        (None, one.tail) if one.follows_image(ids) else (one.before_image(ids), None)
        for ids, one in zip(_tokens(prompt), instructions, strict=True)
    ]


def _behind(prompt: Prompt, cache: DynamicCache, tails: list[list[int]]) -> dict[str, Any]:
    """What `run` takes to read another tail behind each cached prompt."""
    device, width = prompt.input_ids.device, cache.get_seq_length()
    longest = max(map(len, tails))
    ids = torch.tensor([[0] * (longest - len(tail)) + tail for tail in tails], device=device)
    valid = torch.tensor([[0] * (longest - len(tail)) + [1] * len(tail) for tail in tails], device=device)
    prefix = prompt.attention_mask[:, :width] * (torch.arange(width, device=device) <= prompt.last_image)
    return {
        "inputs_embeds": prompt.model.get_input_embeddings()(ids),
        "position_ids": _after_image(prompt) + (valid.cumsum(dim=1) - 1).clamp(min=0),
        "attention_mask": torch.cat([prefix, valid], dim=1).long(),
        "past_key_values": cache,
    }


def prefix_cache(
    prompt: Prompt, more: int, rows: list[int] | None = None, width: int | None = None
) -> DynamicCache | None:
    """The keys and values up to the last image token of the batch, to run other tokens behind.

    The prompt's cache is left as it was.

    Args:
        prompt: what the decoder read.
        more: how many tokens are to follow.
        rows: of these prompts only.
        width: of these first columns only; None takes as many as the prompts reach to their last image token.

    Returns:
        The cache, or None if these keys and values depend on what follows the image, or are not all there.
    """
    width = int(prompt.last_image.max()) + 1 if width is None else width
    config = prompt.model.get_decoder().config
    window = getattr(config, "sliding_window", None)
    # Behind prompts of different lengths the distances between columns are larger than between tokens.
    if not prompt.shareable or (window is not None and width + more > window):
        return None
    layers: list[Any] = prompt.cache.layers
    length = prompt.input_ids.shape[1]
    if any(layer.is_sliding and layer.keys.shape[2] < length for layer in layers):
        return None
    chosen = range(len(prompt.input_ids)) if rows is None else rows
    columns = ([before(parts[row], width) for row in chosen] for parts in (parts_of(one, length) for one in layers))
    return cache_behind(columns, width)


def _once_a_beginning(prompt: Prompt, tail: list[int]) -> torch.Tensor | None:
    """Runs `tail` behind the cached prompts: once for all that share what they begin with, unless it is known."""
    beginnings = prompt.beginnings
    known: list[dict[tuple[int, ...], torch.Tensor]] = [b.attention for b in beginnings] or [
        {} for _ in prompt.input_ids
    ]
    key = tuple(tail)
    new = {id(attention): row for row, attention in enumerate(known) if key not in attention}
    rows = list(new.values())
    if rows:
        cache = prefix_cache(prompt, len(tail), rows)
        if cache is None:
            return None
        counts = prompt.is_image.sum(dim=1).tolist()
        for row, attention in zip(rows, _behind_prefix(prompt, cache, tail, rows), strict=True):
            known[row][key] = attention[..., : counts[row]]
    found = [attention[key] for attention in known]
    width = max(attention.shape[-1] for attention in found)
    return torch.stack([torch.nn.functional.pad(a, (0, width - a.shape[-1])) for a in found])


def _behind_prefix(prompt: Prompt, cache: DynamicCache, tail: list[int], rows: list[int]) -> torch.Tensor:
    """Runs `tail` behind some of the cached prompts, each seeing only its prefix up to the image's last token."""
    width = cache.get_seq_length()
    device = prompt.input_ids.device
    ids = torch.tensor(tail, device=device).expand(len(rows), -1)
    prefix = prompt.attention_mask[:, :width].bool() & (torch.arange(width, device=device) <= prompt.last_image)
    with last_row(prompt.model) as attention:
        prompt.model.get_decoder()(
            inputs_embeds=prompt.model.get_input_embeddings()(ids),
            attention_mask=torch.cat([prefix[rows], torch.ones_like(ids, dtype=torch.bool)], dim=1).long(),
            position_ids=_after_image(prompt)[..., rows, :] + torch.arange(len(tail), device=device),
            past_key_values=cache,
            use_cache=True,
        )
    return over_images(attention, prompt.is_image[rows, :width])


def _after_image(prompt: Prompt) -> torch.Tensor:
    """(..., B, 1) the position of the token that follows each prompt's last image token."""
    positions = prompt.inputs["position_ids"]
    columns = torch.arange(prompt.input_ids.shape[1], device=positions.device)
    # Some processors put the padding between the image and the text.
    follows = prompt.attention_mask.bool() & (columns > prompt.last_image)
    column = follows.long().argmax(dim=1, keepdim=True)
    return positions.gather(-1, column.expand(*positions.shape[:-2], *column.shape))


def _rewritten(
    prompt: Prompt, others: list[_Around], features: torch.Tensor | None
) -> tuple[dict[str, Any], torch.Tensor]:
    """What `run` takes to read the rewritten prompts from their start, and where their images are."""
    inputs, device = prompt.inputs, prompt.input_ids.device
    embed = prompt.model.get_input_embeddings()
    embeddings, types = inputs["inputs_embeds"], inputs.get("token_type_ids")
    if features is not None:
        _, valid = pack(prompt.is_image)
        embeddings = embeddings.clone()
        embeddings[prompt.is_image] = features[valid].to(embeddings)
    parts = []
    for row, (head, tail) in enumerate(others):
        columns = prompt.attention_mask[row].nonzero().flatten()
        image = prompt.is_image[row].nonzero().flatten()
        first, last = int(image[0]), int(image[-1])
        start, end = (first if head is not None else int(columns[0])), (last + 1 if tail is not None else None)
        positions = inputs["position_ids"][..., row, start:end]
        pieces = [(embeddings[row, start:end], positions, prompt.is_image[row, start:end])]
        if head is not None:
            new = inputs["position_ids"][..., row, columns[:1]] + torch.arange(len(head), device=device)
            shift = new[..., -1:] + 1 - inputs["position_ids"][..., row, first : first + 1].amin(dim=-1, keepdim=True)
            pieces = [(pieces[0][0], positions + shift, pieces[0][2])]
            pieces.insert(0, (embed(torch.tensor(head, device=device)), new, torch.zeros(len(head), device=device)))
        if tail is not None:
            new = _after_image(prompt)[..., row, :] + torch.arange(len(tail), device=device)
            pieces.append((embed(torch.tensor(tail, device=device)), new, torch.zeros(len(tail), device=device)))
        parts.append([torch.cat(part, dim) for part, dim in zip(zip(*pieces, strict=True), (0, -1, 0), strict=True)])
    length = max(len(part[0]) for part in parts)
    pad = [length - len(part[0]) for part in parts]
    changed = {
        **inputs,
        "inputs_embeds": torch.stack([_pad(part[0].mT, n).mT for part, n in zip(parts, pad, strict=True)]),
        "position_ids": torch.stack([_pad(part[1], n) for part, n in zip(parts, pad, strict=True)], dim=-2),
        "attention_mask": torch.stack([_pad(torch.ones(length - n, dtype=torch.long, device=device), n) for n in pad]),
    }
    is_image = torch.stack([_pad(part[2], n) for part, n in zip(parts, pad, strict=True)]).bool()
    if types is not None:
        image_type = types[prompt.is_image][0]
        changed["token_type_ids"] = torch.where(is_image, image_type, types[:, -1:])
    if inputs.get("visual_pos_masks") is not None:
        changed["visual_pos_masks"] = is_image
    return changed, is_image


def _pad(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (columns, 0))


def _common(one: str, other: str) -> str:
    """The letters with which both begin."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]
