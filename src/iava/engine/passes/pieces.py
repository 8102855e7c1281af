"""Contrast branches read in as few passes as possible, and in pieces where a pass would need too much memory."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from iava.engine import hf
from iava.engine.boundary import run
from iava.engine.branch import Branch
from iava.engine.caches.cache import SegmentedLayer
from iava.engine.host import to_device

Hooks = Callable[[Branch], AbstractContextManager[None]]


def read_branches(
    model: PreTrainedModel, branches: Sequence[Branch], hooks: Hooks | None, limit: int | None
) -> tuple[list[torch.Tensor], list[DynamicCache]]:
    """Runs branches: the logits of each one's last tokens, (B, V), and their caches.

    Branches behind the same prefix run in one pass, side by side.

    Args:
        model: the model that runs the decoding loop.
        branches: what the decoder is fed.
        hooks: entered around each run of one branch. None: there are none.
        limit: rows times columns of a run, at least one row. None: all rows run at once, as do those behind a prefix.
    """
    if hooks is None and len(branches) > 1 and _behind_one_prefix(model, branches):
        return _side_by_side(model, branches)
    read = [_run_branch(model, branch, hooks or (lambda _: nullcontext()), limit) for branch in branches]
    return [logits for logits, _ in read], [cache for _, cache in read]


def _behind_one_prefix(model: PreTrainedModel, branches: Sequence[Branch]) -> bool:
    """Whether branches differ only in what stands behind the same prefix, and the model takes a mask of such blocks."""
    prefixes = set()
    for branch in branches:
        plain = branch.token_types is None and branch.deepstack is None
        if branch.prefix is None or not plain or not hf.takes_additive_mask(model, branch.prefix):
            return False
        layer: Any = branch.prefix.layers[0]
        rows = [[(end, keys.data_ptr(), keys.shape) for end, keys, _ in row] for row in layer.rows]
        prefixes.add(str((layer.start, rows)))
    return len(prefixes) == 1


def _side_by_side(model: PreTrainedModel, branches: Sequence[Branch]) -> tuple[list[torch.Tensor], list[DynamicCache]]:
    """Runs branches behind one prefix as one row of columns each: no branch sees another's columns."""
    first, start = branches[0], branches[0].prefix_width
    widths = [branch.embeddings.shape[1] for branch in branches]
    together = replace(
        first,
        embeddings=torch.cat([branch.embeddings for branch in branches], dim=1),
        positions=torch.cat([branch.positions for branch in branches], dim=-1),
        mask=torch.cat([first.mask[:, :start], *(branch.mask[:, start:] for branch in branches)], dim=1),
        is_image=torch.cat([first.is_image[:, :start], *(branch.is_image[:, start:] for branch in branches)], dim=1),
    )
    seen = [branch.mask[:, None, :start].expand(-1, width, -1) for branch, width in zip(branches, widths, strict=True)]
    mask = _block_mask(torch.cat(seen, dim=1), together.mask[:, start:], widths, first.embeddings.dtype)
    outputs = run(model, together, mask=mask, last=sum(widths[1:]) + 1)
    # The last column of each branch, from that of the first on.
    ends = np.cumsum([0, *widths[1:]])
    # Each branch's prefix becomes its cache, as where it runs alone.
    caches: list[Any] = [branch.prefix for branch in branches]
    read: list[SegmentedLayer] = list(outputs[hf.CACHE].layers)
    for number, layer in enumerate(read):
        for cache, own_layer in zip(caches, layer.split(widths), strict=True):
            cache.layers[number] = own_layer
    return [outputs.logits[:, end] for end in ends], caches


def _block_mask(seen: torch.Tensor, own: torch.Tensor, widths: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """(B, W, P) and (B, W), 1 at what may be seen -> (B, 1, W, P + W) to be added, causal in each block of the W."""
    block = np.arange(len(widths)).repeat(widths)
    blocks = to_device(np.tri(len(block), dtype=np.int64) * (block[:, None] == block), own.device)
    visible = torch.cat([seen, own[:, None] * blocks], dim=-1)
    return ((visible == 0).to(dtype) * torch.finfo(dtype).min)[:, None]


def _run_branch(
    model: PreTrainedModel, branch: Branch, hooks: Hooks, limit: int | None
) -> tuple[torch.Tensor, DynamicCache]:
    rows, width = branch.embeddings.shape[:2]
    count = rows if limit is None or branch.prefix is not None or branch.deepstack is not None else limit // width
    if count >= rows:
        cache = DynamicCache() if branch.prefix is None else branch.prefix
        with hooks(branch):
            return run(model, branch, cache).logits[:, -1], cache
    logits, caches = [], []
    for start in range(0, rows, max(count, 1)):
        piece, cache = _piece_of(branch, slice(start, start + max(count, 1))), DynamicCache()
        with hooks(piece):
            logits.append(run(model, piece, cache).logits[:, -1])
        caches.append(cache)
    return torch.cat(logits), _join_caches(caches)


def _piece_of(branch: Branch, rows: slice) -> Branch:
    return replace(
        branch,
        embeddings=branch.embeddings[rows],
        positions=branch.positions[..., rows, :],
        mask=branch.mask[rows],
        is_image=branch.is_image[rows],
        token_types=None if branch.token_types is None else branch.token_types[rows],
        begins=branch.begins[rows],
        sees=branch.sees[rows],
    )


def _join_caches(caches: list[DynamicCache]) -> DynamicCache:
    whole = DynamicCache()
    for number in range(len(caches[0].layers)):
        layers: list[Any] = [cache.layers[number] for cache in caches]
        whole.update(torch.cat([one.keys for one in layers]), torch.cat([one.values for one in layers]), number)
        # What is joined is needed no longer.
        for cache in caches:
            cache.layers[number] = DynamicLayer()
    return whole
