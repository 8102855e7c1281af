"""A branch read in pieces, so that its run needs no more memory than the main branch's runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from iava.engine.boundary import run
from iava.engine.branch import Branch


def read_branch(
    model: PreTrainedModel,
    branch: Branch,
    hooks: Callable[[Branch], AbstractContextManager[None]],
    limit: int | None,
) -> tuple[torch.Tensor, DynamicCache]:
    """Runs a branch: its last tokens' logits, (B, V), and its cache.

    Args:
        model: the model that runs the decoding loop.
        branch: what the decoder is fed.
        hooks: entered around each run.
        limit: rows times columns of a run, at least one row. None: all rows run at once, as do those behind a prefix.
    """
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
