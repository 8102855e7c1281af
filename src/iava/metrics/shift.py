"""The accuracy that greedy decoding reaches if a constant is added to its yes-no margin.

A method that only says yes more often moves along this curve, even if it knows nothing about the image. Only accuracy
above the curve is more than a constant bias achieves (arXiv 2504.10020).
"""

from collections.abc import Callable, Sequence

import numpy as np

from iava.metrics.stats import Interval, draws_in_chunks, interval, numbered

BiasCurve = tuple[np.ndarray, np.ndarray]


def bias_curve(margins: Sequence[float], truths: Sequence[str]) -> BiasCurve:
    """Every yes-ratio that a constant bias can reach, and the accuracy there.

    Args:
        margins: (Q,), logit of yes minus logit of no.
        truths: (Q,), "yes" or "no"; at least one.

    Returns:
        (K,) yes-ratios from 0 to 1, rising, and (K,) accuracies; K is one more than there are different margins.
    """
    order, ends = _from_the_surest(margins)
    is_yes = np.array([truth == "yes" for truth in truths])[order]
    gained = np.concatenate([[0], np.cumsum(np.where(is_yes, 1, -1))[ends]])
    said = np.concatenate([[0], ends + 1])
    return said / len(order), ((~is_yes).sum() + gained) / len(order)


def _from_the_surest(margins: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) questions from the largest margin down, and the last place of each different margin in that order."""
    values = np.asarray(margins, dtype=float)
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    return order, np.flatnonzero(np.append(falling[1:] != falling[:-1], True))


def beyond_bias(
    margins: Sequence[float],
    truths: Sequence[str],
    said_yes: Sequence[bool],
    right: Sequence[bool],
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, Interval]:
    """A method's accuracy minus the curve's at the same yes-ratio.

    Between two points the curve is a straight line: a random choice between the two biases.

    Args:
        margins: (Q,), of greedy decoding.
        truths: (Q,), "yes" or "no".
        said_yes, right: (Q,), whether the method answered yes, and whether it was right.
        clusters: (Q,), the image of each question.
        seed: of the draws of images. Each draw has its own curve.

    Returns:
        The difference of accuracies, a fraction of 1, and its 95 % interval over images.
    """
    order, ends = _from_the_surest(margins)
    sign = np.array([1.0 if truth == "yes" else -1.0 for truth in truths])[order]
    images = numbered(clusters)
    columns = np.stack([np.asarray(said_yes, float), np.asarray(right, float), np.ones(len(order))], axis=1)
    totals = np.zeros((int(images.max()) + 1, 3))
    np.add.at(totals, images, columns)
    images = images[order]

    def above(draws: np.ndarray) -> np.ndarray:
        weights = draws[:, images]
        said, correct, n = (draws @ totals).T
        steps = np.pad(np.cumsum(weights, axis=1)[:, ends], ((0, 0), (1, 0)))
        gained = np.pad(np.cumsum(weights * sign, axis=1)[:, ends], ((0, 0), (1, 0)))
        start = (weights * (sign < 0)).sum(axis=1)
        on_curve = [np.interp(said[r], steps[r], gained[r]) + start[r] for r in range(len(draws))]
        return (correct - np.array(on_curve)) / n

    difference = above(np.ones((1, len(totals))))[0]
    values = [above(draws) for draws in draws_in_chunks(len(totals), seed, resamples)]
    return float(difference), interval(np.concatenate(values))


def at_best_threshold(
    margins: Sequence[float],
    others: Sequence[float],
    truths: Sequence[str],
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> tuple[float, float, Interval]:
    """The accuracy of yes-no margins at their best threshold, and its difference from the accuracy of other margins.

    Both thresholds are the best on these questions, in each resample anew. This is a measure and not a method: a shift
    does not change it, and it measures at one working point what AUC measures on average.

    Args:
        margins: (Q,), of a method.
        others: (Q,), of greedy decoding, for the same questions.
        truths: (Q,), "yes" or "no".
        clusters: (Q,), the image of each question.
        seed: of the draws of images.

    Returns:
        The accuracy, its difference from the others', both fractions of 1, and the difference's 95 % interval.
    """
    images = numbered(clusters)
    ours, theirs = (_best_of(values, truths, images) for values in (margins, others))
    count = int(images.max()) + 1
    every = np.ones((1, count))
    values = [ours(draws) - theirs(draws) for draws in draws_in_chunks(count, seed, resamples)]
    accuracy = float(ours(every)[0])
    return accuracy, accuracy - float(theirs(every)[0]), interval(np.concatenate(values))


def _best_of(margins: Sequence[float], truths: Sequence[str], images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (R, C), how often each image is drawn, to (R,) accuracies at the best threshold."""
    order, ends = _from_the_surest(margins)
    sign = np.array([1.0 if truth == "yes" else -1.0 for truth in truths])[order]
    where = images[order]

    def best(draws: np.ndarray) -> np.ndarray:
        weights = draws[:, where]
        gained = np.cumsum(weights * sign, axis=1)[:, ends].max(axis=1)
        # A threshold above all margins is possible, too: nothing is yes.
        return ((weights * (sign < 0)).sum(axis=1) + np.maximum(gained, 0)) / weights.sum(axis=1)

    return best
