"""Keys and values that stand before new ones: looked at where they are, and held once however many rows share them."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Keys and values that one row has in successive columns, (heads, P, d) both, and the column that follows them. Several
# rows may have the same tensors; they are never written to.
Part = tuple[int, torch.Tensor, torch.Tensor]


class Behind(DynamicLayer):
    """A layer of a cache whose `keys` and `values`, (R, heads, W, d) both, are those of the new columns alone.

    Args:
        rows: for each row what stands before, from left to right. What no part fills must not be seen.
        start: the first new column. Where a part reaches beyond it, the part is what counts there.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, rows: Sequence[Sequence[Part]], start: int) -> None:
        super().__init__()
        self.rows, self.start = rows, start
        _, keys, values = rows[0][0]
        self.lazy_initialization(keys, values)
        self.keys, self.values = (part.new_empty(len(rows), len(part), 0, part.shape[2]) for part in (keys, values))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        super().update(key_states, value_states, *args, **kwargs)
        # Kernels want them in one piece, which is needed as long as this layer runs.
        return self.whole()

    def get_seq_length(self) -> int:
        return self.start + super().get_seq_length()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.rows = [self.rows[row] for row in beam_idx.tolist()]
        super().reorder_cache(beam_idx)

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, (R, heads, K, d) both; what no part fills is zero."""
        keys = [[(end, part) for end, part, _ in parts] for parts in self.rows]
        values = [[(end, part) for end, _, part in parts] for parts in self.rows]
        return _joined(keys, self.keys, self.start), _joined(values, self.values, self.start)


def _joined(rows: list[list[tuple[int, torch.Tensor]]], new: torch.Tensor, start: int) -> torch.Tensor:
    joined = new.new_empty(*new.shape[:2], start + new.shape[2], new.shape[3])
    joined[:, :, start:] = new
    done = 0
    # Rows that begin with the same part are written at once.
    for _, alike in groupby(rows, key=lambda parts: (parts[0][0], parts[0][1].data_ptr(), parts[0][1].shape)):
        group = list(alike)
        block = joined[done : done + len(group)]
        end, part = group[0][0]
        block[:, :, : end - part.shape[1]] = 0
        block[:, :, end - part.shape[1] : end] = part
        for row, (_, *parts) in zip(block, group, strict=True):
            _fill(row, parts, end, start)
        done += len(group)
    return joined


def _fill(row: torch.Tensor, parts: list[tuple[int, torch.Tensor]], filled: int, start: int) -> None:
    """Writes parts into (heads, K, d), and zeros where there are none, from column `filled` up to `start`."""
    for end, part in parts:
        begin = end - part.shape[1]
        if begin > filled:
            row[:, filled:begin] = 0
        row[:, begin:end] = part
        filled = end
    if start > filled:
        row[:, filled:start] = 0


def cache_behind(layers: Iterable[Sequence[Sequence[Part]]], start: int) -> DynamicCache:
    """A cache to run tokens with that stand behind others; see `Behind`."""
    cache = DynamicCache()
    cache.layers.extend(Behind(rows, start) for rows in layers)
    return cache


def parts_of(layer: Any, length: int) -> list[list[Part]]:
    """Where each row's keys and values are in a layer, of any kind, that was given `length` columns."""
    if isinstance(layer, Behind):
        over = [max(parts[-1][0] - layer.start, 0) for parts in layer.rows]
        return [
            [*parts, (length, keys[:, skip:], values[:, skip:])]
            for parts, keys, values, skip in zip(layer.rows, layer.keys, layer.values, over, strict=True)
        ]
    # A static layer is filled from its start, a sliding one may have lost its first columns.
    held = min(length, layer.keys.shape[2])
    return [[(length, keys[:, :held], values[:, :held])] for keys, values in zip(layer.keys, layer.values, strict=True)]


def before(parts: Iterable[Part], column: int) -> list[Part]:
    """What a row has to the left of a column."""
    left = []
    for end, keys, values in parts:
        held = max(keys.shape[1] - max(end - column, 0), 0)
        left.append((min(end, column), keys[:, :held], values[:, :held]))
    return left
