"""Intervals and tests for clustered answers: several questions about one image are not independent."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest, rankdata

from iava.errors import IavaError

RESAMPLES = 2000
SWAPS = 10_000
LEVEL = 0.95
_CHUNK = 100  # resamples whose question weights are held at once

Interval = tuple[float, float]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, element by element; 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def resampled(sums: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Draws images with replacement and sums their contributions.

    Args:
        sums: (C, K), what each of C images (clusters) adds to K totals.
        seed: equal seeds draw the same images for equal C, so that two calls are paired.

    Returns:
        (resamples, K) totals.
    """
    return _draws(len(sums), seed, resamples) @ sums


def _draws(clusters: int, seed: int, resamples: int) -> np.ndarray:
    """(resamples, C) float: how often each cluster is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(float)


def draws_in_chunks(clusters: int, seed: int, resamples: int = RESAMPLES) -> list[np.ndarray]:
    """How often each of C clusters is drawn, in chunks of (R, C) float that bound the memory of later steps."""
    return np.array_split(_draws(clusters, seed, resamples), max(1, resamples // _CHUNK))


def interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """The percentile interval of resampled values. NaN (a resample without such a case) is left out, unless all are."""
    if np.isnan(values).all():
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def by_cluster(values: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Sums of the rows of (Q, K) over the questions of each cluster: (C, K), clusters in order of first appearance."""
    number = numbered(clusters)
    sums = np.zeros((int(number.max()) + 1, values.shape[1]))
    np.add.at(sums, number, values)
    return sums


def numbered(clusters: Sequence[str]) -> np.ndarray:
    """(Q,) int: the cluster of each question, counted in order of first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(cluster, len(seen)) for cluster in clusters])


def bootstrap(
    values: np.ndarray,
    clusters: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """95 % interval of a statistic of totals, images being drawn with replacement.

    Args:
        values: (Q, K), what each question adds to K totals.
        clusters: (Q,), the image of each question.
        statistic: (R, K) totals -> (R,) values.
    """
    return interval(statistic(resampled(by_cluster(values, clusters), seed=seed, resamples=resamples)))


def paired_difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    clusters: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """Difference of a statistic of two methods on the same questions, with its 95 % interval over images.

    Args:
        ours, theirs: (Q, K), what each question adds to K totals.
        clusters: (Q,), the image of each question.
        statistic: (R, K) totals -> (R,) values.
    """

    def difference(sums: np.ndarray) -> np.ndarray:
        return statistic(sums[:, : ours.shape[1]]) - statistic(sums[:, ours.shape[1] :])

    values = np.concatenate([ours, theirs], axis=1)
    limits = bootstrap(values, clusters, difference, seed=seed, resamples=resamples)
    return float(difference(values.sum(axis=0, keepdims=True))[0]), limits


def auc(margins: Sequence[float], truths: Sequence[str]) -> float | None:
    """The chance that a question with truth "yes" has a larger yes-no margin than one with "no"; ties count half.

    Returns:
        0 to 1; None if one of the two truths does not occur.
    """
    yes = np.array([truth == "yes" for truth in truths], dtype=bool)
    positives, negatives = int(yes.sum()), int((~yes).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(margins)
    return float((ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def bootstrap_auc(
    margins: Sequence[float],
    positive: Sequence[bool],
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """95 % interval over images of the AUC of `margins` (ties count half) for telling positives from the rest.

    Raises:
        IavaError: if there are only positives, or none.
    """
    return interval(_auc_draws(margins, positive, clusters, seed, resamples))


def auc_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    truths: Sequence[str],
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """The AUC of our margins minus that of theirs on the same questions, and its 95 % interval over images.

    Both draw the same images.

    Args:
        ours, theirs: (Q,) yes-no margins.
        truths: (Q,), "yes" or "no".
        clusters: (Q,), the image of each question.

    Raises:
        IavaError: if only one of the two truths occurs.
    """
    positive = [truth == "yes" for truth in truths]
    own, other = (_auc_draws(margins, positive, clusters, seed, resamples) for margins in (ours, theirs))
    first, second = auc(ours, truths), auc(theirs, truths)
    assert first is not None
    assert second is not None
    return first - second, interval(own - other)


def _auc_draws(
    margins: Sequence[float], positive: Sequence[bool], clusters: Sequence[str], seed: int, resamples: int
) -> np.ndarray:
    """(resamples,) AUCs; NaN where a resample has one truth only."""
    sign = np.asarray(positive, dtype=bool)
    if sign.all() or not sign.any():
        raise IavaError("an AUC needs questions of both truths")
    order = np.argsort(margins, kind="stable")
    number, sign = numbered(clusters)[order], sign[order]
    starts = np.flatnonzero(np.diff(np.asarray(margins)[order], prepend=-np.inf) > 0)
    values = []
    for chunk in draws_in_chunks(int(number.max()) + 1, seed, resamples):
        weights = chunk[:, number]
        yes = np.add.reduceat(weights * sign, starts, axis=1)
        no = np.add.reduceat(weights * ~sign, starts, axis=1)
        won = (yes * (no.cumsum(axis=1) - no / 2)).sum(axis=1)
        pairs = yes.sum(axis=1) * no.sum(axis=1)
        values.append(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))
    return np.concatenate(values)


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Exact two-sided p-value of the hypothesis that two methods are right equally often.

    Args:
        ours, theirs: (Q,) how right each answer is: true or false, or a degree, of which only the order counts (sign
            test). A question must not be listed twice.
    """
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    won, lost = int((ours > theirs).sum()), int((theirs > ours).sum())
    return 1.0 if won + lost == 0 else float(binomtest(won, won + lost, 0.5).pvalue)


def swap_test(
    ours: np.ndarray,
    theirs: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int,
    swaps: int = SWAPS,
) -> float:
    """Two-sided p-value of a statistic's difference between two methods on the same images (paired permutation test).

    If the methods are alike, an image's two contributions may change places. The p-value is the share of random swaps,
    the data among them, whose difference is at least as large as that of the data.

    Args:
        ours, theirs: (C, K), what each of C images adds to K totals.
        statistic: (..., K) totals -> (...) values.
        seed: of the swaps.
    """
    total, other, gain = ours.sum(axis=0), theirs.sum(axis=0), theirs - ours
    rng = np.random.default_rng(seed)
    seen = abs(float(statistic(total) - statistic(other)))
    as_large = 0
    for count in [_CHUNK] * (swaps // _CHUNK):
        moved = rng.integers(0, 2, (count, len(ours))) @ gain
        differences = statistic(total + moved) - statistic(other - moved)
        # Equal differences may differ in their last digits.
        as_large += int((np.abs(differences) >= seen - 1e-12).sum())
    return (1 + as_large) / (1 + swaps // _CHUNK * _CHUNK)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given. Each is compared with the level directly."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.zeros(len(p_values))
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted.tolist()
