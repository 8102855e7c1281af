"""Where large ends and small begins, found in the numbers themselves: for `top_i="auto"` and `lam="auto"`.

Each rule takes (B, N) values and which of them are meant, (B, N) bool, and gives a (B, 1) threshold that lies midway
between two neighbouring values: those above it are the large ones. Of fewer than two values all are large.
"""

import math
from collections.abc import Callable

import torch

Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def otsu(values: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Two classes with the largest variance between them (Otsu, 1979)."""

    def between(held: torch.Tensor, k: torch.Tensor, count: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        return k * (count - k) * (held / k - (total - held) / (count - k)).square()

    return _cut(values, among, lambda ordered, held, k, count: between(held, k, count, held[:, -1:]))


def gap(values: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """The widest gap between neighbours."""
    return _cut(values, among, lambda ordered, *_: ordered - torch.nn.functional.pad(ordered[:, 1:], (0, 1)))


def half(values: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """The large ones hold half of the sum, or come closest to it."""
    return _cut(values, among, lambda ordered, held, *_: -(held - held[:, -1:] / 2).abs())


def steady(falls: torch.Tensor, z: float) -> torch.Tensor:
    """The falls that exceed what the wording of the general instruction does to them.

    Args:
        falls: (K, B, N), the fall of each token's attention from each of K general instructions, at least 2.
        z: how many standard deviations (over the K) the mean fall must exceed.

    Returns:
        (B, N) bool.
    """
    return falls.mean(dim=0) > z * falls.std(dim=0)


def _cut(values: torch.Tensor, among: torch.Tensor, score: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Cuts behind the k largest values, where `score` (their order, running sums, k, count) is highest."""
    count = among.sum(dim=1, keepdim=True)
    ordered = values.double().masked_fill(~among, -math.inf).sort(dim=1, descending=True).values
    k = torch.arange(1, values.shape[1] + 1, device=values.device)[None]
    there = ordered.where(k <= count, 0.0)
    best = score(there, there.cumsum(dim=1), k, count).masked_fill(k >= count, -math.inf)
    at = best.argmax(dim=1, keepdim=True)
    below = torch.nn.functional.pad(ordered, (0, 1), value=-math.inf).gather(1, at + 1)
    return (ordered.gather(1, at) + below) / 2
