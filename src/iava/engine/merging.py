"""Putting the rows of several branches into one cache, and taking them out of it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from iava.engine.cache import Behind, before, parts_of
from iava.errors import IavaError


@dataclass
class Branch:
    """What another branch than the first has read.

    Args:
        cache: its keys and values.
        mask: (B, K) 1 where a column of the cache may be seen.
        shared: how many of the cache's first columns stay where they are; what follows them goes to the last columns
            of the cache that holds all branches.
    """

    cache: DynamicCache
    mask: torch.Tensor
    shared: int

    @property
    def spans(self) -> torch.Tensor:
        """(B, 1) how many columns each row has that go to the last ones: from its first token there on."""
        fresh = self.mask[:, self.shared :]
        return fresh.shape[1] - fresh.argmax(dim=1, keepdim=True)

    def needed(self) -> int:
        """How many columns there must be at least."""
        columns = torch.arange(1, self.shared + 1, device=self.mask.device)
        staying = (self.mask[:, : self.shared] * columns).amax(dim=1) if self.shared else 0
        return int((self.spans[:, 0] + staying).max())

    def seen(self, total: int) -> torch.Tensor:
        """(B, total) 1 where its rows may be seen once they are among so many columns."""
        fresh = self.mask[:, self.shared :]
        width = fresh.shape[1]
        seen = torch.nn.functional.pad(self.mask[:, : self.shared], (0, total - self.shared))
        begun = torch.arange(width, device=fresh.device) >= width - self.spans
        seen[:, total - width :] = torch.where(begun, fresh, seen[:, total - width :])
        return seen


def join(cache: Any, branches: Sequence[Branch], length: int) -> tuple[torch.Tensor, int]:
    """Puts other branches' rows behind the first's, without a copy where the first's share what they begin with.

    Args:
        cache: the first branch's, of any kind of layers.
        branches: the others, of B rows each; their caches are emptied.
        length: of the prompts.

    Returns:
        (n B, length + extra) 1 where the rows of the n others may be seen; and `extra`, how many columns more than the
        prompts these need: the first branch's rows have as many empty ones before them.
    """
    extra = max(max(branch.needed() for branch in branches) - length, 0)
    total = length + extra
    spans = [branch.spans[:, 0].tolist() for branch in branches]
    for number, layer in enumerate(cache.layers):
        rows = [[(end + extra, k, v) for end, k, v in parts] for parts in parts_of(layer, length)]
        for branch, its in zip(branches, spans, strict=True):
            read = parts_of(branch.cache.layers[number], branch.mask.shape[1])
            for span, parts in zip(its, read, strict=True):
                _, keys, values = parts[-1]
                rows.append([*before(parts[:-1], total - span), (total, keys[:, -span:], values[:, -span:])])
        every = Behind(rows, total)
        if isinstance(layer, Behind):
            cache.layers[number] = every
        else:
            size = _lengthen(layer, extra)
            layer.keys, layer.values = (_fitted(part, size) for part in every.whole())
        # What no other layer holds now is needed no longer.
        for branch in branches:
            branch.cache.layers[number] = DynamicLayer()
    return torch.cat([branch.seen(total) for branch in branches]), extra


def first_rows(cache: Any, count: int, extra: int) -> None:
    """Leaves in a cache its first rows only, without their first `extra` columns, in layers of the usual kinds."""
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, Behind):
            whole = Behind(layer.rows[:count], layer.start)
            keys, values = whole.update(layer.keys[:count], layer.values[:count])
            cache.layers[number] = DynamicLayer()
            cache.layers[number].update(keys[:, :, extra:], values[:, :, extra:])
        elif len(layer.keys) > count:
            size = _lengthen(layer, -extra)
            layer.keys, layer.values = layer.keys[:count, :, -size:], layer.values[:count, :, -size:]


def _lengthen(layer: Any, columns: int) -> Any:
    """Tells a layer that it was given more columns, or fewer; returns how many it holds then."""
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length += columns
    if not layer.is_compileable:
        held = layer.keys.shape[2] + columns
        return min(layer.cumulative_length, layer.sliding_window - 1) if layer.is_sliding else held
    if layer.is_sliding and columns:
        raise IavaError(
            "another branch is longer than the prompt, and a static cache with a sliding window has no room for it: "
            "leave out cache_implementation"
        )
    layer.max_cache_len += columns
    return layer.max_cache_len


def _fitted(part: torch.Tensor, size: int) -> torch.Tensor:
    """The last columns, or all and empty ones behind them."""
    if size > part.shape[2]:
        return torch.nn.functional.pad(part, (0, 0, 0, size - part.shape[2]))
    return part[:, :, -size:]
