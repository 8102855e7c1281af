"""The one function that lays rows of tokens out in a batch: left padding, embeddings, positions and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import DynamicCache

from iava.engine.branch import Branch
from iava.engine.host import Array, to_device
from iava.engine.prompt import Prompt


@dataclass(frozen=True)
class BranchRow:
    """One row of a branch, on the host: where each of its W tokens comes from.

    Args:
        prompt: number of the prompt it belongs to.
        columns: (W,) the prompt's column that a token is copied from; -1 at new tokens.
        positions: (..., W); None: those of the columns.
        tokens: (W,) ids, for the new tokens; None where there are none.
    """

    prompt: int
    columns: Array
    positions: Array | None = None
    tokens: Array | None = None

    def from_token(self, start: int) -> "BranchRow":
        """The row without its first tokens."""
        tokens = None if self.tokens is None else self.tokens[start:]
        positions = None if self.positions is None else self.positions[..., start:]
        return replace(self, columns=self.columns[start:], positions=positions, tokens=tokens)


def copied(chosen: Array) -> list[BranchRow]:
    """Rows that keep some columns of each prompt, (B, S) bool, with their positions."""
    return [BranchRow(number, row.nonzero()[0]) for number, row in enumerate(chosen)]


def lay_out(
    prompt: Prompt,
    rows: Sequence[BranchRow],
    prefix: DynamicCache | None = None,
    seen: torch.Tensor | None = None,
    ends: Sequence[int] = (),
) -> Branch:
    """Puts rows into one batch: left padding, embeddings, positions, masks and all that goes by column.

    Args:
        prompt: what the rows are made of.
        rows: R of them.
        prefix: keys and values that stand before each row.
        seen: (R, P) bool, which columns of the prefix each row may see.
        ends: for each row the column of the prefix behind the last one that it may see.
    """
    main, device = prompt.main, prompt.input_ids.device
    length = prompt.input_ids.shape[1]
    width = max(len(row.columns) for row in rows)
    index = np.stack([_left_padded(row.columns, width, -1) for row in rows])
    begins = [width - len(row.columns) for row in rows]
    valid = np.arange(width) >= np.array(begins)[:, None]
    of = np.array([[row.prompt] for row in rows])
    old, at = index >= 0, index.clip(min=0)
    is_image = prompt.host[2][of, at] & old
    new = any(row.tokens is not None for row in rows)
    ids = [np.zeros(len(row.columns), int) if row.tokens is None else row.tokens for row in rows]
    flat = of * length + at
    # One copy to the device holds all numbers.
    new_ids = [_left_padded(row, width) for row in ids]
    sent = to_device(np.stack([flat, valid, is_image, old | ~valid, new_ids]).astype(np.int64), device)
    embeddings = main.embeddings.flatten(0, 1)[sent[0]]
    if new:
        made = prompt.model.get_input_embeddings()(sent[4]).to(embeddings)
        embeddings = torch.where(sent[3].bool()[..., None], embeddings, made)
    types = main.token_types
    # Behind a prefix, decoders take features only with images.
    featured = main.deepstack is not None and (prefix is None or is_image.any())
    branch = Branch(
        embeddings=embeddings,
        positions=_positions(prompt, rows, sent[0], valid),
        mask=sent[1],
        is_image=sent[2].bool(),
        token_types=None if types is None else _types(types, sent, of[:, 0]),
        begins=begins,
        sees=[0] * len(rows),
        deepstack=_features(prompt, flat[is_image]) if featured else None,
        others=main.others,
    )
    return branch if prefix is None or seen is None else _behind(branch, prompt, of[:, 0], prefix, seen, ends)


def _positions(prompt: Prompt, rows: Sequence[BranchRow], flat: torch.Tensor, valid: Array) -> torch.Tensor:
    """(..., R, W); 0 at padding."""
    positions = prompt.main.positions
    if all(row.positions is None for row in rows):
        found = positions.flatten(-2, -1)[..., flat]
        return found if valid.all() else found * to_device(valid, flat.device)
    every = prompt.host_positions
    known = [every[..., row.prompt, row.columns] if row.positions is None else row.positions for row in rows]
    laid = np.stack([_left_padded(one, valid.shape[1]) for one in known], axis=-2)
    return to_device(laid, flat.device)


def _types(types: torch.Tensor, sent: torch.Tensor, of: Array) -> torch.Tensor:
    """New tokens are of the type of the prompt's last one."""
    last = types[:, -1:][to_device(of, types.device)]
    return types.flatten()[sent[0]].where((sent[3] * sent[1]).bool(), last)


def _features(prompt: Prompt, flat: Array) -> list[torch.Tensor]:
    """The deepstack features of the image tokens at some columns, counted through all rows."""
    assert prompt.main.deepstack is not None
    ranks = to_device((prompt.host[2].reshape(-1).cumsum() - 1)[flat], prompt.input_ids.device)
    return [features[ranks.to(features.device)] for features in prompt.main.deepstack]


def _behind(
    branch: Branch, prompt: Prompt, of: Array, prefix: DynamicCache, seen: torch.Tensor, ends: Sequence[int]
) -> Branch:
    every = prompt.is_image if len(of) == len(prompt.is_image) else prompt.is_image[to_device(of, seen.device)]
    return replace(
        branch,
        mask=torch.cat([seen.long(), branch.mask], dim=1),
        is_image=torch.cat([every[:, : seen.shape[1]] & seen, branch.is_image], dim=1),
        prefix=prefix,
        sees=ends,
        # An outer model makes no masks of types for a part of the prompt; text behind its images needs none.
        token_types=None,
    )


def _left_padded(array: Array, width: int, value: int = 0) -> Array:
    free = [(0, 0)] * (array.ndim - 1) + [(width - array.shape[-1], 0)]
    return np.pad(array, free, constant_values=value)
