"""Reading each image once: prompts that begin alike are read together, and what was read can be kept.

In a causal decoder the keys and values up to the last image token do not depend on what follows. Prompts whose
decoder inputs up to there are equal share them; each prompt then costs what follows its image.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from iava.engine.boundary import Prompt, run
from iava.engine.cache import cache_behind
from iava.engine.columns import at_columns, right_aligned
from iava.engine.probe import last_row


@dataclass
class Beginning:
    """One image, and what stands before it, as the decoder read it.

    Args:
        embeddings: (P, D) what the decoder was fed, up to the last image token.
        positions: (..., P).
        layers: each layer's keys and values, (heads, P, d) both.
        attention: by the tokens of an instruction, the attention to the image under it, (L, heads, N).
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    attention: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    def equals(self, embeddings: torch.Tensor, positions: torch.Tensor) -> bool:
        """Whether another prompt begins so; up to rounding, because a vision tower's threads round each row their own
        way."""
        if embeddings.shape != self.embeddings.shape or not torch.equal(self.positions, positions):
            return False
        rounding = 16 * torch.finfo(embeddings.dtype).eps * self.embeddings.abs().amax()
        return bool((self.embeddings - embeddings).abs().amax() <= rounding)


class Memory:
    """What was read of images, to be asked about later. Belongs to one model."""

    def __init__(self) -> None:
        self.beginnings: list[Beginning] = []


def read_together(
    prompt: Prompt,
    memory: Memory | None,
    steering: Callable[[torch.Tensor], AbstractContextManager[None]],
    *,
    probe: bool,
) -> Any:
    """Reads prompts of which some begin alike; fills the prompt's cache, its `beginnings` and, probing, its rows.

    Args:
        prompt: with an empty cache, and no rows.
        memory: what was read before; what is read now is added. None keeps nothing.
        steering: entered while what follows the beginnings is read; given (B, S) bool, where the image tokens are.
        probe: whether the attention of the last prompt tokens is wanted.

    Returns:
        The model's outputs for the last tokens, or None if nothing can be shared.
    """
    config = prompt.model.get_decoder().config
    window = getattr(config, "sliding_window", None)
    length = prompt.input_ids.shape[1]
    mask = prompt.attention_mask.bool()
    columns = torch.arange(length, device=mask.device)
    begins = mask & (columns <= prompt.last_image)
    if not prompt.shareable or (window is not None and 2 * length > window):
        return None
    ends = prompt.last_image[:, 0] + 1
    if not torch.equal(begins.sum(dim=1), ends - begins.long().argmax(dim=1)):
        # What is held without the columns that nobody may see could not be put back where it was.
        return None
    known = list(memory.beginnings) if memory else []
    found, new = _matched(prompt, begins, known)
    if memory is None and len(new) == len(found):
        return None
    if new:
        known += _read(prompt, begins, new)
        if memory is not None:
            memory.beginnings = known
    prompt.beginnings = [known[number] for number in found]
    return _read_on(prompt, ends.tolist(), steering, probe)


def _matched(prompt: Prompt, begins: torch.Tensor, known: list[Beginning]) -> tuple[list[int], list[int]]:
    """For each prompt the number of its beginning, and the prompts that are the first with a new one."""
    embeddings, positions = prompt.inputs["inputs_embeds"], prompt.inputs["position_ids"]
    seen = list(known)
    found, new = [], []
    for row, begin in enumerate(begins):
        mine = embeddings[row, begin], positions[..., row, begin]
        number = next((n for n, beginning in enumerate(seen) if beginning.equals(*mine)), len(seen))
        if number == len(seen):
            seen.append(Beginning(*mine, layers=[]))
            new.append(row)
        found.append(number)
    return found, new


def _read(prompt: Prompt, begins: torch.Tensor, rows: list[int]) -> list[Beginning]:
    """Runs the beginnings of some prompts."""
    index, valid = right_aligned(begins[rows])
    inputs = prompt.inputs
    some = {
        **inputs,
        "inputs_embeds": inputs["inputs_embeds"][rows],
        "position_ids": inputs["position_ids"][..., rows, :],
    }
    if inputs.get("token_type_ids") is not None:
        some["token_type_ids"] = inputs["token_type_ids"][rows]
    if inputs.get("visual_pos_masks") is not None:
        some["visual_pos_masks"] = inputs["visual_pos_masks"][rows]
        chosen = torch.isin(prompt.is_image.nonzero()[:, 0], torch.tensor(rows, device=index.device))
        some["deepstack_visual_embeds"] = [features[chosen] for features in inputs["deepstack_visual_embeds"]]
    cache = DynamicCache()
    run(prompt.model, at_columns(some, index, valid), cache)
    # Right aligned: what a beginning has is its run's last columns.
    counts = begins[rows].sum(dim=1).tolist()
    layers: list[Any] = cache.layers
    return [
        Beginning(
            embeddings=inputs["inputs_embeds"][row, begins[row]],
            positions=inputs["position_ids"][..., row, begins[row]],
            layers=[(layer.keys[n, :, -count:], layer.values[n, :, -count:]) for layer in layers],
        )
        for n, (row, count) in enumerate(zip(rows, counts, strict=True))
    ]


def _read_on(
    prompt: Prompt,
    ends: list[int],
    steering: Callable[[torch.Tensor], AbstractContextManager[None]],
    probe: bool,
) -> Any:
    """Runs the columns that follow the first beginning to end; those that another beginning has, too, are its own."""
    start, inputs = min(ends), prompt.inputs
    layers = zip(*(beginning.layers for beginning in prompt.beginnings), strict=True)
    cache = cache_behind(([[(end, *part)] for end, part in zip(ends, layer, strict=True)] for layer in layers), start)
    watch: AbstractContextManager[list[torch.Tensor]] = last_row(prompt.model) if probe else nullcontext([])
    with watch as prompt.rows, steering(prompt.is_image):
        outputs = run(
            prompt.model,
            {
                "inputs_embeds": inputs["inputs_embeds"][:, start:],
                "position_ids": inputs["position_ids"][..., start:],
                "attention_mask": prompt.attention_mask,
            },
            cache,
        )
    # What only one prompt begins with is better copied once than put together for each new token.
    shared = len(set(map(id, prompt.beginnings))) < len(ends)
    read: list[Any] = cache.layers
    held = prompt.cache.layers
    for number, layer in enumerate(read):
        if shared and (number == len(held) or type(held[number]) is DynamicLayer):
            held[number : number + 1] = [layer]
        else:
            prompt.cache.update(*layer.whole(), number)
    outputs.past_key_values = prompt.cache
    return outputs


def may_begin_alike(input_ids: torch.Tensor, is_image: torch.Tensor) -> bool:
    """Whether two prompts of a batch have the same tokens up to their last image token."""
    beginnings = set()
    for ids, image in zip(input_ids.tolist(), is_image.tolist(), strict=True):
        last = len(image) - image[::-1].index(True) if True in image else 0
        first = image.index(True) if True in image else 0
        beginnings.add(tuple(ids[first:last]))
    return len(beginnings) < len(input_ids)
