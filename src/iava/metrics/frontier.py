"""What captions say and what they hallucinate: settings of methods against the frontier of controls.

Two settings can be mixed: each image's caption is drawn from one or the other. A mixture's expected sums lie between
those of the two, so every point between them is a control that exists. The frontier at some recall is the lowest CHAIRi
of all settings and mixtures of two that have this recall or a higher one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from iava.metrics.parts import Record
from iava.metrics.stats import Interval, draws_in_chunks, interval, share, swap_test

FRONTIER_RESAMPLES = 1000
_ROUNDING = 1e-9
"""By which a setting may miss its own value of a metric."""
COLUMNS = ("captions", "mentions", "wrong", "objects", "hits", "named", "words")
"""What each caption adds to: captions, mentions of things, mentions of absent things, things in the image, different
things named that are there, different things named, words of its text."""


@dataclass(frozen=True)
class Ratio:
    """A metric that is one weighted total over another.

    Args:
        part, whole: weights of `COLUMNS`.
    """

    part: dict[str, float]
    whole: dict[str, float]

    def of(self, totals: np.ndarray) -> np.ndarray:
        """(..., K) totals -> (...) values; 0 where there is nothing to divide by."""
        return share(totals @ _column_weights(self.part), totals @ _column_weights(self.whole))

    def excess(self, totals: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Linear in the totals, 0 where the metric is `value`, above 0 where it is larger."""
        return totals @ _column_weights(self.part) - value * (totals @ _column_weights(self.whole))


def _column_weights(of_columns: dict[str, float]) -> np.ndarray:
    return np.array([of_columns.get(name, 0.0) for name in COLUMNS])


CHAIR_I = Ratio({"wrong": 1}, {"mentions": 1})
RATIOS = {
    "chair_i": CHAIR_I,
    "recall": Ratio({"hits": 1}, {"objects": 1}),
    "object_f1": Ratio({"hits": 2}, {"objects": 1, "named": 1}),
    "things": Ratio({"mentions": 1}, {"captions": 1}),
    "words": Ratio({"words": 1}, {"captions": 1}),
}
"""By name: CHAIRi, recall, F1 of the different things named, things named per caption, and words per caption."""


def caption_sums(records: Sequence[Record]) -> np.ndarray:
    """What each caption adds to `COLUMNS`: (N, K).

    Args:
        records: with text, parsed (the things named, as often as they are named) and truth (the things there).
    """
    rows = []
    for record in records:
        said, there = record["parsed"], set(record["truth"])
        wrong = sum(thing not in there for thing in said)
        words = len(record["text"].split())
        rows.append((1, len(said), wrong, len(there), len(there & set(said)), len(set(said)), words))
    return np.array(rows, dtype=float).reshape(-1, len(COLUMNS))


def lowest(totals: np.ndarray, ratio: Ratio, value: np.ndarray) -> np.ndarray:
    """The lowest CHAIRi of settings, and of mixtures of two, that reach a value of a metric.

    Args:
        totals: (P, R, K) of P settings in R resamples.
        ratio: the metric that is matched.
        value: (R,) of the metric.

    Returns:
        (R,) CHAIRi; NaN where no setting reaches the value.
    """
    excess = ratio.excess(totals, value)
    found = np.where(excess >= -_ROUNDING, CHAIR_I.of(totals), np.inf).min(axis=0)
    if len(totals) > 1:
        first, second = map(list, zip(*combinations(range(len(totals)), 2), strict=True))
        straddle = excess[first] * excess[second] < 0
        gap = np.where(straddle, excess[second] - excess[first], 1.0)
        weight = np.where(straddle, excess[second] / gap, 0.0)
        wrong, mentions = totals @ _column_weights(CHAIR_I.part), totals @ _column_weights(CHAIR_I.whole)
        mixed = share(
            weight * wrong[first] + (1 - weight) * wrong[second],
            weight * mentions[first] + (1 - weight) * mentions[second],
        )
        found = np.minimum(found, np.where(straddle, mixed, np.inf).min(axis=0))
    return np.where(np.isfinite(found), found, np.nan)


def match(totals: np.ndarray, ratio: Ratio, value: float) -> list[tuple[int, float]]:
    """The setting, or the mixture of two, with the lowest CHAIRi that reaches a value of a metric.

    Args:
        totals: (P, K) of P settings.

    Returns:
        (setting, its share of the images) of one or two settings; empty if none reaches the value.
    """
    excess = ratio.excess(totals, np.asarray(value))
    options: list[list[tuple[int, float]]] = [[(p, 1.0)] for p in range(len(totals)) if excess[p] >= -_ROUNDING]
    for i, j in combinations(range(len(totals)), 2):
        if excess[i] * excess[j] < 0:
            weight = float(excess[j] / (excess[j] - excess[i]))
            options.append([(i, weight), (j, 1 - weight)])
    # Of equal options a single setting comes first.
    return min(options, key=lambda one: float(CHAIR_I.of(mixture(totals, one))), default=[])


def mixture(totals: np.ndarray, parts: Sequence[tuple[int, float]]) -> np.ndarray:
    """The expected sums of a mixture: (P, ..., K) -> (..., K)."""
    return np.sum([weight * totals[setting] for setting, weight in parts], axis=0)


def resampled_totals(sums: np.ndarray, *, seed: int, resamples: int = FRONTIER_RESAMPLES) -> np.ndarray:
    """Totals of P settings over images drawn with replacement, the same for all: (P, C, K) -> (P, R, K)."""
    draws = np.concatenate(draws_in_chunks(sums.shape[1], seed, resamples))
    return draws @ sums


@dataclass(frozen=True)
class Distance:
    """How far a setting lies from the frontier of the controls, at the same recall or length.

    Args:
        difference: its CHAIRi minus the frontier's; below 0 is better than every control.
        interval: 95 %, over images; each resample has its own frontier.
        controls: (index of a control's setting, its share) of the mixture on the frontier.
        p: of the paired test; see `iava.metrics.stats.swap_test`.
    """

    difference: float
    interval: Interval
    controls: list[tuple[int, float]]
    p: float


def distance(
    own: np.ndarray, controls: np.ndarray, draws: tuple[np.ndarray, np.ndarray], ratio: Ratio, *, seed: int
) -> Distance | None:
    """The distance of a setting from the frontier, where the frontier has the setting's value of a metric.

    Args:
        own: (C, K), what each of C captions adds.
        controls: (P, C, K), the same of P settings of controls.
        draws: (R, K) and (P, R, K), both in resamples; see `resampled_totals`.
        ratio: the metric that is matched.

    Returns:
        None if no control reaches the value.
    """
    totals = controls.sum(axis=1)
    parts = match(totals, ratio, float(ratio.of(own.sum(axis=0))))
    if not parts:
        return None
    ours, theirs = draws
    values = CHAIR_I.of(ours) - lowest(theirs, ratio, ratio.of(ours))
    difference = CHAIR_I.of(own.sum(axis=0)) - CHAIR_I.of(mixture(totals, parts))
    p = swap_test(own, mixture(controls, parts), CHAIR_I.of, seed=seed)
    return Distance(float(difference), interval(values), parts, p)


def curve(sums: np.ndarray, draws: np.ndarray, ratio: Ratio, *, steps: int = 40) -> list[tuple[float, float, Interval]]:
    """The lowest CHAIRi of a method's whole sweep at evenly spaced values of a metric, with 95 % intervals over images.

    Args:
        sums: (P, C, K), what each caption adds under each of the method's P settings.
        draws: (P, R, K), totals in resamples.

    Returns:
        (value, CHAIRi, interval) from the smallest value that a setting has to the largest.
    """
    totals = sums.sum(axis=1)
    values = ratio.of(totals)
    grid = np.unique(np.concatenate([np.linspace(values.min(), values.max(), steps), values]))
    found = []
    for value in grid:
        estimate = float(lowest(totals[:, None], ratio, np.array([value]))[0])
        found.append((float(value), estimate, interval(lowest(draws, ratio, np.full(draws.shape[1], value)))))
    return found
