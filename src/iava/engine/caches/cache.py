"""Cache layers: keys and values that several rows share, held once, and layers that grow in place."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from iava.engine.host import Array
from iava.engine.prompt import Prompt

Segment = tuple[int, torch.Tensor, torch.Tensor]
"""Keys and values of one row in successive columns, (heads, P, d) both, behind the number of the column that follows
them. Several rows may have the same tensors; they are never written to."""


class SegmentedLayer(DynamicLayer):
    """A cache layer whose rows begin with segments that they may share.

    `keys` and `values`, (R, heads, W, d) both, are those of the new columns alone. They stand behind the segments.

    Args:
        rows: cached segments of each row, in column order. Columns without a segment must be masked.
        start: the first new column. Where a segment reaches beyond it, the segment counts there.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, rows: Sequence[Sequence[Segment]], start: int) -> None:
        super().__init__()
        self.rows, self.start = rows, start
        _, keys, values = rows[0][0]
        self.lazy_initialization(keys, values)
        self.keys, self.values = (part.new_empty(len(rows), len(part), 0, part.shape[2]) for part in (keys, values))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.keys.shape[2] == 0:
            self.keys, self.values = key_states, value_states
        else:
            super().update(key_states, value_states, *args, **kwargs)
        # Attention functions want them in one piece, which is needed as long as this layer runs.
        return self.whole()

    def get_seq_length(self) -> int:
        return self.start + super().get_seq_length()

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.rows = [self.rows[row] for row in beam_idx.tolist()]
        super().reorder_cache(beam_idx)

    def extended(self, more: Sequence[Sequence[Segment]], left_pad: int) -> "SegmentedLayer":
        """A layer with more rows behind these; all rows have the same number of columns.

        Args:
            more: segments of the new rows. The last segment of each belongs to that row alone.
            left_pad: number of empty columns that the rows of this layer get at their start.
        """
        start = self.start + left_pad
        rows: list[list[Segment]] = [[(end + left_pad, k, v) for end, k, v in segments] for segments in self.rows]
        # What no other row shares goes into one tensor: it is copied at once for each new token.
        new_keys, new_values = (part.new_zeros(len(more), *part.shape[1:]) for part in (self.keys, self.values))
        for segments, row_keys, row_values in zip(more, new_keys, new_values, strict=True):
            kept: list[Segment] = []
            for segment in segments:
                end, keys, values = segment
                begin = end - keys.shape[1]
                cut = max(start - begin, 0)
                if cut == 0 or segment is segments[-1]:
                    row_keys[:, begin + cut - start : end - start] = keys[:, cut:]
                    row_values[:, begin + cut - start : end - start] = values[:, cut:]
                    keys, values = keys[:, :cut].clone(), values[:, :cut].clone()
                if keys.shape[1]:
                    kept.append((begin + keys.shape[1], keys, values))
            rows.append(kept)
        layer = SegmentedLayer(rows, start)
        layer.keys, layer.values = torch.cat([self.keys, new_keys]), torch.cat([self.values, new_values])
        return layer

    def split(self, widths: Sequence[int]) -> list["SegmentedLayer"]:
        """Layers behind the same segments, each with so many of the new columns, in order."""
        layers = [SegmentedLayer(self.rows, self.start) for _ in widths]
        parts = zip(self.keys.split(list(widths), dim=2), self.values.split(list(widths), dim=2), strict=True)
        for layer, part in zip(layers, parts, strict=True):
            layer.keys, layer.values = part
        return layers

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, (R, heads, K, d) both; columns without a segment are zero."""
        keys = [[(end, part) for end, part, _ in segments] for segments in self.rows]
        values = [[(end, part) for end, _, part in segments] for segments in self.rows]
        return _assembled(keys, self.keys, self.start), _assembled(values, self.values, self.start)


SPARE = 64
"""A multiple of so many columns is allocated for a layer that grows."""


class GrowingLayer(DynamicLayer):
    """A cache layer with spare columns: new tokens are written behind the others, which are not copied.

    `keys` and `values`, (R, heads, W, d) both, are the first columns of larger tensors. Kernels take them as they are.

    Args:
        keys, values: (R, heads, at least W, d), as `with_spare` makes them.
        columns: W.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, columns: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._show(keys, values, columns)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        begin, (keys, values) = self.keys.shape[2], self._all
        end = begin + key_states.shape[2]
        if end > keys.shape[2]:
            keys, values = (with_spare(part, end) for part in (self.keys, self.values))
            keys[:, :, :begin], values[:, :, :begin] = self.keys, self.values
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        self._show(keys, values, end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        keys, values = (part.index_select(0, beam_idx.to(part.device)) for part in self._all)
        self._show(keys, values, self.keys.shape[2])

    def _show(self, keys: torch.Tensor, values: torch.Tensor, columns: int) -> None:
        self._all = keys, values
        self.keys, self.values = keys[:, :, :columns], values[:, :, :columns]


def with_spare(like: torch.Tensor, columns: int, rows: int | None = None) -> torch.Tensor:
    """An empty tensor with room for so many columns and more, otherwise like (R, heads, W, d)."""
    count, heads, _, width = like.shape
    return like.new_empty(count if rows is None else rows, heads, (columns // SPARE + 1) * SPARE, width)


def segmented_cache(layers: Iterable[Sequence[Sequence[Segment]]], start: int) -> DynamicCache:
    """A cache for tokens that stand behind segments; see `SegmentedLayer`."""
    cache = DynamicCache()
    cache.layers.extend(SegmentedLayer(rows, start) for rows in layers)
    return cache


def segments_of(layer: Any, length: int) -> list[list[Segment]]:
    """The segments of each row of a cache layer, of any kind, that was given `length` columns."""
    if isinstance(layer, SegmentedLayer):
        over = [max(segments[-1][0] - layer.start, 0) if segments else 0 for segments in layer.rows]
        return [
            [*segments, (length, keys[:, skip:], values[:, skip:])]
            for segments, keys, values, skip in zip(layer.rows, layer.keys, layer.values, over, strict=True)
        ]
    # A static layer is filled from its start. A sliding one may have lost its first columns.
    kept = min(length, layer.keys.shape[2])
    return [[(length, keys[:, :kept], values[:, :kept])] for keys, values in zip(layer.keys, layer.values, strict=True)]


def before(segments: Iterable[Segment], column: int) -> list[Segment]:
    """The segments of a row to the left of a column."""
    left = []
    for end, keys, values in segments:
        kept = max(keys.shape[1] - max(end - column, 0), 0)
        left.append((min(end, column), keys[:, :kept], values[:, :kept]))
    return left


def shared_prefix(prompt: Prompt, ends: Array, more: int, rows: Sequence[int] | None = None) -> DynamicCache | None:
    """The keys and values of prompts up to a column, to run other tokens behind; the prompt's cache is left as it was.

    Args:
        prompt: what the decoder read.
        ends: (R,) for each row the column behind the last one that it needs.
        more: how many tokens are to follow.
        rows: which prompts; None takes all.

    Returns:
        A cache of as many columns as the largest of `ends`, or None if these keys and values depend on what follows
        them, or are not all in the cache.
    """
    chosen = list(range(len(prompt.input_ids))) if rows is None else list(rows)
    width, length = int(ends.max()), prompt.input_ids.shape[1]
    every = prompt.image_end.copy()
    every[chosen] = ends
    window = getattr(prompt.model.get_decoder().config, "sliding_window", None)
    # Behind prompts of different lengths the distances between columns are larger than between tokens.
    if width == 0 or not prompt.shares_before(every) or (window is not None and width + more > window):
        return None
    layers: list[Any] = prompt.cache.layers
    if any(layer.is_sliding and layer.keys.shape[2] < length for layer in layers):
        return None
    segments = (segments_of(layer, length) for layer in layers)
    return segmented_cache(([before(one[row], width) for row in chosen] for one in segments), width)


def _assembled(rows: list[list[tuple[int, torch.Tensor]]], new: torch.Tensor, start: int) -> torch.Tensor:
    if rows and all(len(row) == 1 and row[0][0] == row[0][1].shape[1] == start for row in rows):
        firsts = [row[0][1] for row in rows]
        same = all(segment is firsts[0] for segment in firsts)
        before_new = firsts[0].expand(len(rows), -1, -1, -1) if same else torch.stack(firsts)
        return torch.cat([before_new, new], dim=2)
    whole = new.new_empty(*new.shape[:2], start + new.shape[2], new.shape[3])
    whole[:, :, start:] = new
    done = 0
    # Successive rows with the same segments are written at once.
    for _, alike in groupby(rows, key=lambda row: [(end, part.data_ptr(), part.shape) for end, part in row]):
        group = list(alike)
        block = whole[done : done + len(group)]
        filled = 0
        for end, part in group[0]:
            begin = end - part.shape[1]
            if begin > filled:
                block[:, :, filled:begin] = 0
            block[:, :, begin:end] = part
            filled = end
        if start > filled:
            block[:, :, filled:start] = 0
        done += len(group)
    return whole
