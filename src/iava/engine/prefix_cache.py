"""Each image is read once: prompts that begin alike share what they begin with, and it can be kept for later calls.

In a causal decoder, keys and values up to the last image token do not depend on what follows. Prompts whose
decoder inputs up to there are equal share them. Each prompt then costs what follows its image.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from iava.engine import hf
from iava.engine.boundary import run
from iava.engine.branch import Branch
from iava.engine.cache import segmented_cache
from iava.engine.layout import copied, lay_out
from iava.engine.probe import last_row
from iava.engine.prompt import Prompt


@dataclass
class SharedPrefix:
    """What prompts begin with, up to their last image token, as the decoder read it.

    Args:
        embeddings: (P, D) what the decoder was fed.
        positions: (..., P).
        layers: each layer's keys and values, (heads, P, d) both.
        attention: by the tokens that follow, the last one's attention to the image, (L, heads, N).
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    attention: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        pairs = [tensor for pair in self.layers for tensor in pair]
        return sum(tensor.nbytes for tensor in (self.embeddings, self.positions, *pairs, *self.attention.values()))

    def equals(self, embeddings: torch.Tensor, positions: torch.Tensor) -> bool:
        """Whether another prompt begins so, up to rounding: a vision tower rounds the rows of a batch differently."""
        if embeddings.shape != self.embeddings.shape or not torch.equal(self.positions, positions):
            return False
        rounding = 16 * torch.finfo(embeddings.dtype).eps * self.embeddings.abs().amax()
        return bool((self.embeddings - embeddings).abs().amax() <= rounding)


class PrefixCache:
    """Shared prefixes of earlier calls, for later ones. Belongs to one model.

    Args:
        prefixes: of earlier calls.
    """

    def __init__(self, prefixes: Sequence[SharedPrefix] = ()) -> None:
        self.prefixes = list(prefixes)
        self.latest: list[SharedPrefix] = []
        """The prefix of each prompt of the last call; empty if nothing could be shared."""


def read_together(
    prompt: Prompt,
    prefix_cache: PrefixCache | None,
    hooks: Callable[[Branch], AbstractContextManager[None]],
    *,
    probe: bool,
) -> hf.Outputs | None:
    """Reads prompts of which some begin alike; fills the prompt's cache, its `shared` and, if asked, its rows.

    Args:
        prompt: with an empty cache, and no rows.
        prefix_cache: what was read before; what is read now is added. None keeps nothing.
        hooks: entered while what follows the prefixes is read.
        probe: whether the attention of the last prompt tokens is wanted.

    Returns:
        The model's outputs for the last tokens, or None if nothing can be shared.
    """
    window = getattr(prompt.model.get_decoder().config, "sliding_window", None)
    length, ends = prompt.input_ids.shape[1], prompt.image_end
    mask = prompt.main.mask.bool()
    begins = mask & (torch.arange(length, device=mask.device) < ends[:, None])
    if not prompt.shares_before(ends) or (window is not None and 2 * length > window):
        return None
    if not torch.equal(begins.sum(dim=1), ends - begins.long().argmax(dim=1)):
        # A prefix is kept without its masked columns, and could not be put back where it was.
        return None
    known = list(prefix_cache.prefixes) if prefix_cache else []
    found, new = _matched(prompt, begins, known)
    if prefix_cache is None and len(new) == len(found):
        return None
    if new:
        known += _read(prompt, begins, new)
        if prefix_cache is not None:
            prefix_cache.prefixes = known
    prompt.shared = [known[number] for number in found]
    if prefix_cache is not None:
        prefix_cache.latest = prompt.shared
    return _read_on(prompt, hooks, probe)


def _matched(prompt: Prompt, begins: torch.Tensor, known: list[SharedPrefix]) -> tuple[list[int], list[int]]:
    """For each prompt the number of its prefix, and the prompts that are the first with a new one."""
    seen = list(known)
    found, new = [], []
    for row, begin in enumerate(begins):
        mine = prompt.main.embeddings[row, begin], prompt.main.positions[..., row, begin]
        number = next((n for n, prefix in enumerate(seen) if prefix.equals(*mine)), len(seen))
        if number == len(seen):
            seen.append(SharedPrefix(*mine, layers=[]))
            new.append(row)
        found.append(number)
    return found, new


def _read(prompt: Prompt, begins: torch.Tensor, rows: list[int]) -> list[SharedPrefix]:
    """Runs what some prompts begin with."""
    every = copied(prompt, begins)
    chosen = [every[row] for row in rows]
    cache = DynamicCache()
    run(prompt.model, lay_out(prompt, chosen), cache)
    layers: list[Any] = cache.layers
    found = []
    for number, row in enumerate(chosen):
        count = len(row.columns)
        # Rows are left padded: theirs are the last columns.
        parts = [(layer.keys[number, :, -count:], layer.values[number, :, -count:]) for layer in layers]
        found.append(SharedPrefix(prompt.main.embeddings[row.prompt, row.columns], row.positions, parts))
    return found


def _read_on(prompt: Prompt, hooks: Callable[[Branch], AbstractContextManager[None]], probe: bool) -> hf.Outputs:
    """Runs the columns that follow the shortest prefix; where a longer one reaches, its keys and values count."""
    main, ends = prompt.main, prompt.image_end.tolist()
    start = min(ends)
    layers = zip(*(prefix.layers for prefix in prompt.shared), strict=True)
    rest = Branch(
        embeddings=main.embeddings[:, start:],
        positions=main.positions[..., start:],
        mask=main.mask,
        is_image=main.is_image,
        prefix=segmented_cache(
            ([[(end, *kv)] for end, kv in zip(ends, layer, strict=True)] for layer in layers), start
        ),
    )
    watch: AbstractContextManager[list[torch.Tensor]] = last_row(prompt.model) if probe else nullcontext([])
    with watch as prompt.rows, hooks(rest):
        outputs = run(prompt.model, rest)
    # A prefix of one prompt alone is better copied once than put together for each new token.
    shared = len(set(map(id, prompt.shared))) < len(ends)
    read: list[Any] = outputs[hf.CACHE].layers
    kept = prompt.cache.layers
    for number, layer in enumerate(read):
        if shared and (number == len(kept) or type(kept[number]) is DynamicLayer):
            kept[number : number + 1] = [layer]
        else:
            prompt.cache.update(*layer.whole(), number)
    outputs[hf.CACHE] = prompt.cache
    return outputs


def behind_one_prefix(prompt: Prompt) -> Branch:
    """The branch of prompts that all begin alike; what they begin with is read once.

    Args:
        prompt: of which `read_together` found that all share one prefix. Its embeddings may be others by now.
    """
    mask, ends = prompt.main.mask.bool(), prompt.image_end
    follows = mask & (torch.arange(mask.shape[1], device=mask.device) >= ends[:, None])
    (begin,) = _read(prompt, mask & ~follows, [0])
    width = int(ends.max())
    layers = ([[(end, *pair)] for end in ends.tolist()] for pair in begin.layers)
    return lay_out(prompt, copied(prompt, follows), segmented_cache(layers, width), (mask & ~follows)[:, :width])


def may_begin_alike(input_ids: torch.Tensor, is_image: torch.Tensor) -> bool:
    """Whether two prompts of a batch have the same tokens up to their last image token."""
    prefixes = set()
    for ids, image in zip(input_ids.tolist(), is_image.tolist(), strict=True):
        last = len(image) - image[::-1].index(True) if True in image else 0
        first = image.index(True) if True in image else 0
        prefixes.add(tuple(ids[first:last]))
    return len(prefixes) < len(input_ids)
