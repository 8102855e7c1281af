"""One batch of all branches: their rows in one cache, with one layout of columns, masks and positions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer

from iava.engine import hf
from iava.engine.branch import Branch
from iava.engine.caches.cache import GrowingLayer, Segment, SegmentedLayer, before, segments_of, with_spare
from iava.engine.host import to_device


@dataclass(frozen=True)
class Layout:
    """Where the rows of n contrast branches stand in the batch of all branches, behind the B rows of the main branch.

    Args:
        mask: (n B, left_pad + S) long, 1 at columns that these rows may see.
        complete: whether the rows of all branches, the main one too, see every column.
        is_image: (n B, left_pad + S) bool; None where nobody asks.
        left_pad: how many columns more than the prompts (S) the batch has; they are empty in the main branch.
        position_offset: (..., n B, 1), how far the positions of these rows are ahead of the main branch's.
    """

    mask: torch.Tensor
    complete: bool
    is_image: torch.Tensor | None
    left_pad: int
    position_offset: torch.Tensor

    def of(self, rows: torch.Tensor) -> "Layout":
        """The layout of some rows of the contrast branches, (R,) long."""
        is_image = None if self.is_image is None else self.is_image[rows]
        offset = self.position_offset[..., rows, :]
        return replace(self, mask=self.mask[rows], is_image=is_image, position_offset=offset)


def lay_side_by_side(main: Branch, branches: Sequence[Branch], *, complete: bool, images: bool) -> Layout:
    """Finds the columns of all branches in one batch.

    The columns of a prefix stay where they are. A row's other columns go to the end of the batch, so that what is
    answered follows them. They may cover columns of the prefix that the row does not see.

    Args:
        main: the main branch.
        branches: the contrast branches.
        complete: whether no token of the main branch is padding.
        images: whether the columns of image tokens are wanted.
    """
    length = main.mask.shape[1]
    total = max(length, *(_columns_needed(branch) for branch in branches))
    last = main.positions[..., -1:]
    return Layout(
        mask=torch.cat([_spread(branch, branch.mask, total) for branch in branches]),
        complete=complete and total == length and all(_fills(branch, total) for branch in branches),
        is_image=torch.cat([_spread(branch, branch.is_image, total) for branch in branches]) if images else None,
        left_pad=total - length,
        position_offset=torch.cat([branch.positions[..., -1:] - last for branch in branches], dim=-2),
    )


def merge_caches(main: Any, length: int, branches: Sequence[Branch], caches: Sequence[Any], left_pad: int) -> None:
    """Puts the rows of contrast branches into the main branch's cache, behind its own rows.

    Segments that several rows share stay shared if they are so in the main branch; otherwise whole rows are cheaper.

    Args:
        main: the main branch's cache, of any kind of layers.
        length: S, of the prompts.
        branches: what the others read.
        caches: what they were read into; emptied.
        left_pad: see `Layout`.
    """
    total = length + left_pad
    counts = [_fresh_columns(branch) for branch in branches]
    for number, layer in enumerate(main.layers):
        contrast: list[list[Segment]] = []
        for branch, cache, fresh in zip(branches, caches, counts, strict=True):
            read = segments_of(cache.layers[number], branch.mask.shape[1])
            for count, segments in zip(fresh, read, strict=True):
                _, keys, values = segments[-1]
                new = (total, keys[:, -count:], values[:, -count:])
                contrast.append([*before(segments[:-1], total - count), new])
        if isinstance(layer, SegmentedLayer):
            main.layers[number] = layer.extended(contrast, left_pad)
        elif type(layer) is DynamicLayer:
            main.layers[number] = _joined_layer(layer, contrast, total)
        else:
            rows = [[(end + left_pad, k, v) for end, k, v in segments] for segments in segments_of(layer, length)]
            size = hf.resize_layer(layer, left_pad)
            whole = SegmentedLayer([*rows, *contrast], total).whole()
            hf.fill_layer(layer, *(_resized(part, size) for part in whole))
        # What no other layer holds now is needed no longer.
        for cache in caches:
            cache.layers[number] = DynamicLayer()


def _joined_layer(main: Any, contrast: Sequence[Sequence[Segment]], total: int) -> GrowingLayer:
    """The rows of a layer of the main branch, and behind them contrast rows."""
    keys = _joined_rows(main.keys, [[(end, part) for end, part, _ in row] for row in contrast], total)
    values = _joined_rows(main.values, [[(end, part) for end, _, part in row] for row in contrast], total)
    return GrowingLayer(keys, values, total)


def _joined_rows(
    main: torch.Tensor, contrast: Sequence[Sequence[tuple[int, torch.Tensor]]], total: int
) -> torch.Tensor:
    """The rows of the main branch, (B, heads, S, d), and behind them contrast rows, (R, heads, at least total, d).

    Contrast rows begin as copies of the main rows. So a prefix that they share is there already, and columns that they
    do not see hold numbers.
    """
    count, pad = len(main), total - main.shape[2]
    rows = with_spare(main, total, count + len(contrast))
    if pad:
        rows[:, :, :pad] = 0
    rows[:, :, pad:total].unflatten(0, (-1, count))[:] = main
    for number, segments in enumerate(contrast):
        for end, part in segments:
            begin = end - part.shape[1]
            if pad or begin or part.data_ptr() != main[number % count].data_ptr():
                rows[count + number, :, begin:end] = part
    return rows


def select_main_branch(cache: Any, rows: int, left_pad: int) -> None:
    """Leaves in a cache the rows of the main branch only, without their left pad, in layers of the usual kinds."""
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, SegmentedLayer):
            whole = SegmentedLayer(layer.rows[:rows], layer.start)
            keys, values = whole.update(layer.keys[:rows], layer.values[:rows])
            cache.layers[number] = DynamicLayer()
            cache.layers[number].update(keys[:, :, left_pad:], values[:, :, left_pad:])
        elif isinstance(layer, GrowingLayer):
            cache.layers[number] = DynamicLayer()
            cache.layers[number].update(layer.keys[:rows, :, left_pad:], layer.values[:rows, :, left_pad:])
        elif layer.keys is not None and len(layer.keys) > rows:
            size = hf.resize_layer(layer, -left_pad)
            layer.keys, layer.values = layer.keys[:rows, :, -size:], layer.values[:rows, :, -size:]


def _fresh_columns(branch: Branch) -> list[int]:
    """How many columns of each row stand behind the prefix, from its first token there on."""
    return [branch.embeddings.shape[1] - first for first in branch.begins]


def _fills(branch: Branch, total: int) -> bool:
    """Whether all rows of a branch are known to see all columns. What is seen of a prefix only the device knows."""
    return branch.prefix is None and branch.embeddings.shape[1] == total and not any(branch.begins)


def _columns_needed(branch: Branch) -> int:
    """How many columns the batch must have at least: what a row may see of the prefix, and its others."""
    return max(fresh + seen for fresh, seen in zip(_fresh_columns(branch), branch.sees, strict=True))


def _spread(branch: Branch, by_column: torch.Tensor, total: int) -> torch.Tensor:
    """(B, P + W) -> (B, total): moves what goes by column to where the columns are in the batch of all branches."""
    prefix, width = branch.prefix_width, branch.embeddings.shape[1]
    if prefix == 0:
        return torch.nn.functional.pad(by_column, (total - width, 0))
    spread = torch.nn.functional.pad(by_column[:, :prefix], (0, total - prefix))
    begun = to_device(np.arange(width) >= np.array(branch.begins)[:, None], by_column.device)
    spread[:, total - width :] = torch.where(begun, by_column[:, prefix:], spread[:, total - width :])
    return spread


def _resized(part: torch.Tensor, size: int) -> torch.Tensor:
    """The last columns, or all and empty ones behind them."""
    if size > part.shape[2]:
        return torch.nn.functional.pad(part, (0, 0, 0, size - part.shape[2]))
    return part[:, :, -size:]
