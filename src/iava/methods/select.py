"""Which image tokens the second branch keeps."""

import math

import torch

from iava.errors import IavaError
from iava.methods.adaptive import Rule, otsu
from iava.methods.checks import check_lam, check_top_i

ROUNDING = 1e-4
"""A fall by less than this share is rounding, not attention: the same question asked twice selects nothing."""


def select_irrelevant(
    att_general: torch.Tensor,
    att_query: torch.Tensor,
    *,
    top_i: int | float | str,
    lam: float | str,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """The image tokens that are irrelevant to the question (arXiv 2503.18556).

    A token is selected if its attention falls from the general instruction to the question, by more than rounding
    (`ROUNDING`), if this fall is among
    the row's `top_i` largest (equal falls: the earlier token first), and if its attention under the general
    instruction lies above mean + lam * std (sample standard deviation) over the row's image tokens.

    Args:
        att_general: (B, N) attention under the general instruction.
        att_query: (B, N) attention under the question.
        top_i: an int of at least 1 is a count, a float in (0, 1] a share of the row's tokens (rounded, at least 1);
            "auto" finds it in each row, see `criteria`.
        lam: any finite number, or "auto".
        valid: (B, N) bool, False where a row has fewer than N image tokens; None: all are there.

    Returns:
        (B, N) bool; a row may be all False.

    Raises:
        IavaError: if the shapes differ, or a parameter is out of range.

    Examples:
        >>> general, query = torch.tensor([[0.4, 0.3, 0.1, 0.1]]), torch.tensor([[0.1, 0.4, 0.1, 0.2]])
        >>> iava.select_irrelevant(general, query, top_i=2, lam=0.0)
        tensor([[ True, False, False, False]])
    """
    if att_general.dim() != 2 or att_general.shape != att_query.shape:
        raise IavaError(
            f"att_general is {tuple(att_general.shape)} and att_query {tuple(att_query.shape)}: both must be (B, N)"
        )
    check_top_i(top_i)
    check_lam(lam)
    valid = torch.ones_like(att_general, dtype=torch.bool) if valid is None else valid
    most, least = criteria(att_general, att_query, top_i=top_i, lam=lam, valid=valid)
    return within(att_general, att_query, most, least, valid)


def within(
    att_general: torch.Tensor, att_query: torch.Tensor, most: torch.Tensor, lam: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """`select_irrelevant` with each row's own criteria, (B, 1) each: (B, N) bool."""
    fall = (att_general - att_query).where(valid, -math.inf)
    rank = fall.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    falls = fall > ROUNDING * att_general
    return falls & (rank < most) & above_mean(att_general, lam, valid)


def criteria(
    att_general: torch.Tensor,
    att_query: torch.Tensor,
    *,
    top_i: int | float | str,
    lam: float | str,
    valid: torch.Tensor,
    rule: Rule = otsu,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`top_i` as a count and `lam` as a number, for each row: two times (B, 1).

    Where they are "auto", a threshold parts what falls much from what falls little, and tokens with much attention
    under the general instruction from those with little.

    Args:
        att_general, att_query, top_i, lam, valid: see `select_irrelevant`.
        rule: what finds a threshold.
    """
    most = at_most(top_i, valid) if not isinstance(top_i, str) else _above(att_general - att_query, valid, rule)
    if not isinstance(lam, str):
        return most, torch.full_like(att_general[:, :1], lam)
    mean, std = spread(att_general, valid)
    found = (rule(att_general, valid) - mean) / std
    # Where all tokens have the same attention none stands out.
    return most, found.where(found.isfinite(), 0.0).to(att_general.dtype)


def _above(fall: torch.Tensor, valid: torch.Tensor, rule: Rule) -> torch.Tensor:
    falls = valid & (fall > 0)
    return (falls & (fall > rule(fall, falls))).sum(dim=1, keepdim=True).clamp(min=1)


def above_mean(attention: torch.Tensor, lam: float | torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Whose attention lies above mean + lam * std over a row's tokens: (B, N) -> (B, N) bool."""
    mean, std = spread(attention, valid)
    return valid & (attention > mean + lam * std)


def spread(attention: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sample standard deviation over each row's tokens: (B, N), (B, N) bool -> two times (B, 1)."""
    count = valid.sum(dim=1, keepdim=True)
    mean = attention.where(valid, 0).sum(dim=1, keepdim=True) / count
    squares = (attention - mean).where(valid, 0).square().sum(dim=1, keepdim=True)
    # One token alone has no spread, and is not above its own mean.
    return mean, (squares / (count - 1).clamp(min=1)).sqrt()


def at_most(top_i: int | float, valid: torch.Tensor) -> torch.Tensor:
    """How many tokens of each row may be selected: (B, N) bool -> (B, 1)."""
    count = valid.sum(dim=1, keepdim=True)
    if isinstance(top_i, float):
        return (top_i * count).round().clamp(min=1)
    return torch.full_like(count, min(top_i, valid.shape[1]))
