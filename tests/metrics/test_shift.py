"""The curve of constant biases against trying every bias, and what lies beyond it against resampling by hand."""

from itertools import pairwise

import numpy as np
import pytest

from iava.metrics.shift import at_best_threshold, beyond_bias, bias_curve
from tests.metrics.test_stats import naive_draws


def questions(seed, count, values=None):
    rng = np.random.default_rng(seed)
    truths = ["yes" if yes else "no" for yes in rng.random(count) < 0.5]
    margins = rng.normal(size=count) + [0.8 if truth == "yes" else -0.8 for truth in truths]
    return (margins if values is None else np.round(margins * values) / values).tolist(), truths


def tried(margins, truths):
    """Yes-ratio and accuracy for a bias between any two margins, and beyond the outermost."""
    found = {}
    values = sorted(set(margins))
    middles = [(a + b) / 2 for a, b in pairwise(values)]
    for threshold in [values[0] - 1, *middles, values[-1] + 1]:
        answers = ["yes" if margin - threshold > 0 else "no" for margin in margins]
        right = np.mean([answer == truth for answer, truth in zip(answers, truths, strict=True)])
        found[np.mean([answer == "yes" for answer in answers])] = right
    return sorted(found.items())


@pytest.mark.parametrize(("count", "values"), [(60, None), (60, 2), (1, None), (7, 1)])
def test_the_curve_is_what_trying_every_bias_gives(count, values):
    margins, truths = questions(count, count, values)
    ratios, accuracies = bias_curve(margins, truths)
    assert list(zip(ratios, accuracies, strict=True)) == [pytest.approx(pair) for pair in tried(margins, truths)]
    assert (ratios[0], ratios[-1]) == (0.0, 1.0)


def on_curve(margins, truths, ratio):
    ratios, accuracies = zip(*tried(margins, truths), strict=True)
    return float(np.interp(ratio, ratios, accuracies))


@pytest.mark.parametrize("values", [None, 2])
def test_beyond_bias_equals_resampling_question_by_question(values):
    margins, truths = questions(1, 48, values)
    clusters = [f"image-{i // 4}" for i in range(48)]
    rng = np.random.default_rng(5)
    said = [margin + rng.normal(0.4) > 0 for margin in margins]
    right = [yes == (truth == "yes") for yes, truth in zip(said, truths, strict=True)]
    difference, limits = beyond_bias(margins, truths, said, right, clusters, seed=7, resamples=120)
    assert difference == pytest.approx(np.mean(right) - on_curve(margins, truths, np.mean(said)))
    expected = [
        np.mean(np.array(right)[q])
        - on_curve([margins[i] for i in q], [truths[i] for i in q], np.mean(np.array(said)[q]))
        for q in naive_draws(clusters, 7, 120)
    ]
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))


@pytest.mark.parametrize("bias", [-1.3, 0.0, 0.6, 9.0])
def test_a_pure_shift_is_not_beyond_it(bias):
    margins, truths = questions(2, 40)
    said = [margin + bias > 0 for margin in margins]
    right = [yes == (truth == "yes") for yes, truth in zip(said, truths, strict=True)]
    difference, limits = beyond_bias(margins, truths, said, right, [str(i) for i in range(40)], seed=0)
    assert (difference, *limits) == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("values", [None, 2])
def test_the_best_threshold_equals_trying_every_one_in_every_resample(values):
    margins, truths = questions(3, 48, values)
    others, _ = questions(4, 48, values)
    clusters = [f"image-{i // 4}" for i in range(48)]
    best, above, limits = at_best_threshold(margins, others, truths, clusters, seed=7, resamples=120)

    def reached(margins, q):
        return max(right for _, right in tried([margins[i] for i in q], [truths[i] for i in q]))

    assert best == pytest.approx(reached(margins, range(48)))
    assert above == pytest.approx(best - reached(others, range(48)))
    expected = [reached(margins, q) - reached(others, q) for q in naive_draws(clusters, 7, 120)]
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))


def test_a_shift_does_not_move_the_best_threshold():
    margins, truths = questions(2, 40)
    best, above, limits = at_best_threshold(
        [m + 3 for m in margins], margins, truths, list(map(str, range(40))), seed=0
    )
    assert (above, *limits) == (0, 0, 0)
    assert best >= np.mean([(m > 0) == (t == "yes") for m, t in zip(margins, truths, strict=True)])
