"""The one function that lays rows of tokens out in a batch: left padding, embeddings, positions and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import DynamicCache

from iava.engine.branch import Branch
from iava.engine.prompt import Prompt


@dataclass(frozen=True)
class Row:
    """One row of a branch: where each of its W tokens comes from.

    Args:
        prompt: number of the prompt it belongs to.
        columns: (W,) long, the prompt's column that a token is copied from; -1 at new tokens.
        positions: (..., W).
        tokens: (W,) ids, for the new tokens; None where there are none.
    """

    prompt: int
    columns: torch.Tensor
    positions: torch.Tensor
    tokens: torch.Tensor | None = None

    def from_token(self, start: int) -> "Row":
        """The row without its first tokens."""
        tokens = None if self.tokens is None else self.tokens[start:]
        return replace(self, columns=self.columns[start:], positions=self.positions[..., start:], tokens=tokens)


def copied(prompt: Prompt, chosen: torch.Tensor) -> list[Row]:
    """Rows that keep some columns of each prompt, (B, S) bool, with their positions."""
    positions = prompt.main.positions
    every = [row.nonzero().flatten() for row in chosen]
    return [Row(number, columns, positions[..., number, columns]) for number, columns in enumerate(every)]


def lay_out(
    prompt: Prompt, rows: Sequence[Row], prefix: DynamicCache | None = None, seen: torch.Tensor | None = None
) -> Branch:
    """Puts rows into one batch: left padding, embeddings, positions, masks and all that goes by column.

    Args:
        prompt: what the rows are made of.
        rows: R of them.
        prefix: keys and values that stand before each row.
        seen: (R, P) bool, which columns of the prefix each row may see.
    """
    main, device = prompt.main, prompt.input_ids.device
    width = max(len(row.columns) for row in rows)
    of = torch.tensor([row.prompt for row in rows], device=device)[:, None]
    index = torch.stack([_left_padded(row.columns, width, -1) for row in rows])
    valid = torch.stack([_left_padded(torch.ones_like(row.columns), width) for row in rows]).bool()
    old, at = index >= 0, index.clamp(min=0)
    embeddings = main.embeddings[of, at]
    tokens = [torch.zeros_like(row.columns) if row.tokens is None else row.tokens for row in rows]
    if any(row.tokens is not None for row in rows):
        ids = torch.stack([_left_padded(one, width) for one in tokens])
        new = prompt.model.get_input_embeddings()(ids).to(embeddings)
        embeddings = torch.where((valid & ~old)[..., None], new, embeddings)
    is_image = prompt.is_image[of, at] & old
    ranks = (prompt.is_image.flatten().cumsum(0) - 1).view_as(prompt.is_image)[of, at][is_image]
    types = main.token_types
    branch = Branch(
        embeddings=embeddings,
        positions=torch.stack([_left_padded(row.positions, width) for row in rows], dim=-2),
        mask=valid.long(),
        is_image=is_image,
        token_types=None if types is None else types[of, at].where(old, types[of[:, 0], -1:]),
        deepstack=None if main.deepstack is None else [features[ranks] for features in main.deepstack],
        others=main.others,
    )
    return branch if prefix is None or seen is None else _behind(branch, prompt, of, prefix, seen)


def _behind(branch: Branch, prompt: Prompt, of: torch.Tensor, prefix: DynamicCache, seen: torch.Tensor) -> Branch:
    before = prompt.is_image[of[:, 0], : seen.shape[1]] & seen
    return replace(
        branch,
        mask=torch.cat([seen.long(), branch.mask], dim=1),
        is_image=torch.cat([before, branch.is_image], dim=1),
        prefix=prefix,
        # An outer model makes no masks of types for a part of the prompt; text behind its images needs none.
        token_types=None,
        deepstack=branch.deepstack if branch.is_image.any() else None,
    )


def _left_padded(tensor: torch.Tensor, width: int, value: int = 0) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (width - tensor.shape[-1], 0), value=value)
