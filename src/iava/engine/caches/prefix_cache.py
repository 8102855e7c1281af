"""Each image is read once: prompts that begin alike share what they begin with, and it can be kept for later calls.

In a causal decoder, keys and values up to the last image token do not depend on what follows. Prompts whose
decoder inputs up to there are equal share them. Each prompt then costs what follows its image.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from iava.engine import hf
from iava.engine.boundary import run
from iava.engine.branch import Branch
from iava.engine.caches.cache import segmented_cache
from iava.engine.host import Array, to_device, to_host
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

    def compact(self) -> None:
        """Copies the tensors that are parts of larger ones, so that the batch they were read in can be freed."""
        self.embeddings, self.positions = _alone(self.embeddings), _alone(self.positions)
        self.layers = [(_alone(keys), _alone(values)) for keys, values in self.layers]
        self.attention = {tokens: _alone(attention) for tokens, attention in self.attention.items()}

    def equals(self, embeddings: torch.Tensor, positions: torch.Tensor) -> bool:
        """Whether another prompt begins so, up to rounding."""
        if embeddings.shape != self.embeddings.shape or not torch.equal(self.positions, positions):
            return False
        return bool(_close(self.embeddings, embeddings))


class PrefixCache:
    """Shared prefixes of earlier calls, for later ones, the least recently used first. Belongs to one model.

    Args:
        prefixes: of earlier calls.
    """

    def __init__(self, prefixes: Sequence[SharedPrefix] = ()) -> None:
        self.prefixes = list(prefixes)
        self.latest: list[SharedPrefix] = []
        """The prefix of each prompt of the last call; empty if nothing could be shared."""

    @property
    def nbytes(self) -> int:
        """Bytes of all prefixes."""
        return sum(prefix.nbytes for prefix in self.prefixes)

    def trim(self, max_bytes: int) -> None:
        """Drops the least recently used prefixes until the rest takes at most `max_bytes`.

        The last one stays. Where it takes more alone, it loses the attention that was kept first.
        """
        while self.nbytes > max_bytes and len(self.prefixes) > 1:
            del self.prefixes[0]
        kept = self.prefixes[-1].attention if self.prefixes else {}
        while self.nbytes > max_bytes and kept:
            del kept[next(iter(kept))]


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
    mask = prompt.host[1]
    begins = mask & (np.arange(length) < ends[:, None])
    if not prompt.shares_before(ends) or (window is not None and 2 * length > window):
        return None
    if (begins.sum(axis=1) != ends - begins.argmax(axis=1)).any():
        # A prefix is kept without its masked columns, and could not be put back where it was.
        return None
    known = list(prefix_cache.prefixes) if prefix_cache else []
    found, new = _matched(prompt, begins, known)
    if prefix_cache is None and len(new) == len(found):
        return None
    if new:
        known += _run_prefixes(prompt, begins, new)
    prompt.shared = [known[number] for number in found]
    if prefix_cache is not None:
        used = set(found)
        unused = [prefix for number, prefix in enumerate(known) if number not in used]
        prefix_cache.prefixes = [*unused, *(known[number] for number in sorted(used))]
        prefix_cache.latest = prompt.shared
    rest = len(begins) * (length - int(ends.min()))
    prompt.largest_run = max([rest, *(len(new) * int(begin.sum()) for begin in begins[new])])
    return _read_on(prompt, hooks, probe)


def _matched(prompt: Prompt, begins: Array, known: list[SharedPrefix]) -> tuple[list[int], list[int]]:
    """For each prompt the number of its prefix, and the prompts that are the first with a new one."""
    found: list[int] = []
    new: list[int] = []
    alike = _alike(prompt, begins)
    for row in range(len(begins)):
        own = _span(begins[row])
        mine = prompt.main.embeddings[row, own], prompt.main.positions[..., row, own]
        number = next((found[other] for other in range(row) if (other, row) in alike), None)
        if number is None:
            number = next((n for n, prefix in enumerate(known) if prefix.equals(*mine)), None)
        if number is None:
            number = len(known) + len(new)
            new.append(row)
        found.append(number)
    return found, new


def _alike(prompt: Prompt, begins: Array) -> set[tuple[int, int]]:
    """The pairs of prompts that begin alike, for one wait."""
    ids, positions, embeddings = prompt.host[0], prompt.host_positions, prompt.main.embeddings
    spans = [_span(begin) for begin in begins]
    texts = [(tuple(ids[row, own]), positions[..., row, own].tobytes()) for row, own in enumerate(spans)]
    pairs = [pair for pair in combinations(range(len(ids)), 2) if texts[pair[0]] == texts[pair[1]]]
    if not pairs:
        return set()
    close = torch.stack([_close(embeddings[one, spans[one]], embeddings[two, spans[two]]) for one, two in pairs])
    return {pair for pair, same in zip(pairs, to_host(close)[0], strict=True) if same}


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _close(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """() bool, whether embeddings are equal up to rounding: a vision tower rounds the rows of a batch differently."""
    return (one - other).abs().amax() <= 16 * torch.finfo(one.dtype).eps * one.abs().amax()


def _span(begin: Array) -> slice:
    """The columns that are True; they stand together."""
    first = int(begin.argmax())
    return slice(first, first + int(begin.sum()))


def _run_prefixes(prompt: Prompt, begins: Array, rows: list[int]) -> list[SharedPrefix]:
    """Runs what some prompts begin with."""
    every = copied(begins)
    chosen = [every[row] for row in rows]
    cache = DynamicCache()
    run(prompt.model, lay_out(prompt, chosen), cache)
    layers: list[Any] = cache.layers
    found = []
    for number, row in enumerate(chosen):
        count = len(row.columns)
        # Rows are left padded: theirs are the last columns. A part of a larger tensor would keep all of it alive.
        pairs = [(layer.keys[number, :, -count:], layer.values[number, :, -count:]) for layer in layers]
        parts = pairs if len(chosen) == 1 else [(keys.clone(), values.clone()) for keys, values in pairs]
        own = _span(begins[row.prompt])
        embeddings, positions = prompt.main.embeddings[row.prompt, own], prompt.main.positions[..., row.prompt, own]
        found.append(SharedPrefix(embeddings.clone(), positions.clone(), parts))
    return found


def _read_on(prompt: Prompt, hooks: Callable[[Branch], AbstractContextManager[None]], probe: bool) -> hf.Outputs:
    """Runs the columns that follow the shortest prefix; where a longer one reaches, its keys and values count."""
    main, ends = prompt.main, [int(end) for end in prompt.image_end]
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
    mask, ends = prompt.host[1], prompt.image_end
    follows = mask & (np.arange(mask.shape[1]) >= ends[:, None])
    (begin,) = _run_prefixes(prompt, mask & ~follows, [0])
    width, last = int(ends.max()), [int(end) for end in ends]
    layers = ([[(end, *pair)] for end in last] for pair in begin.layers)
    seen = to_device((mask & ~follows)[:, :width], prompt.input_ids.device)
    return lay_out(prompt, copied(mask & follows), segmented_cache(layers, width), seen, last)


def may_share(input_ids: torch.Tensor, pixels: Any, image_token_id: int, *, keeps: bool) -> bool:
    """Whether all prompts of a batch have images, and two may begin alike up to their last image token.

    To look at the decoder's inputs takes a run of the vision tower, so tokens and pixels are compared before. Where
    prefixes are kept for later calls, one prompt is enough.

    Args:
        input_ids: (B, T).
        pixels: what `generate` was given as pixel_values. Other than one entry for each prompt, it is not compared.
    """
    if len(input_ids) == 1 and not keeps:
        return False
    images = input_ids.new_zeros(len(input_ids))
    one_each = isinstance(pixels, torch.Tensor) and len(pixels) == len(input_ids) and pixels.dim() > 2
    if one_each and not keeps:
        # Equal sums of other images cost a look at the decoder's inputs, and no more.
        images = pixels.flatten(1).float().sum(dim=1).view(torch.int32)
    ids, of_images = to_host(input_ids, images)
    columns = [(row == image_token_id).nonzero()[0] for row in ids]
    if not all(map(len, columns)):
        return False
    prefixes = {(image, *row[own[0] : own[-1] + 1]) for row, own, image in zip(ids, columns, of_images, strict=True)}
    return keeps or len(prefixes) < len(ids)
