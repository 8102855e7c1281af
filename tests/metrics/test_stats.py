"""Intervals against naive loops over questions, p-values against counted ones."""

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from iava.metrics.stats import (
    auc,
    auc_difference,
    bootstrap,
    bootstrap_auc,
    by_cluster,
    holm,
    interval,
    mcnemar,
    paired_difference,
    resampled,
    swap_test,
)


def some_answers(seed=0, images=30, each=4):
    rng = np.random.default_rng(seed)
    clusters = [f"image-{i}" for i in range(images) for _ in range(each)]
    skill = np.repeat(rng.random(images), each)
    return clusters, rng.random(len(clusters)) < skill, rng.random(len(clusters)) < 0.6


def naive_draws(clusters, seed, resamples):
    """Question numbers of each resample, one image drawn after the other."""
    names = list(dict.fromkeys(clusters))
    counts = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
    for draw in counts:
        yield [
            question
            for name, times in zip(names, draw, strict=True)
            for _ in range(times)
            for question, cluster in enumerate(clusters)
            if cluster == name
        ]


def test_bootstrap_of_accuracy_equals_resampling_question_by_question():
    clusters, right, _ = some_answers()
    values = np.stack([right, np.ones_like(right)], axis=1).astype(float)
    limits = bootstrap(values, clusters, lambda sums: sums[:, 0] / sums[:, 1], seed=7, resamples=200)
    expected = [right[questions].mean() for questions in naive_draws(clusters, 7, 200)]
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))


def test_bootstrap_of_auc_equals_resampling_question_by_question():
    clusters, truth, _ = some_answers(seed=1, images=8)
    margins = np.random.default_rng(1).integers(0, 5, size=len(clusters)) + truth
    limits = bootstrap_auc(margins.tolist(), truth.tolist(), clusters, seed=3, resamples=150)
    expected = []
    for questions in naive_draws(clusters, 3, 150):
        answers = ["yes" if truth[q] else "no" for q in questions]
        expected.append(auc(margins[questions].tolist(), answers))
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))
    with pytest.raises(ValueError, match="both truths"):
        bootstrap_auc([1.0], [True], ["a"], seed=0)


def test_the_difference_of_aucs_draws_the_same_images_for_both():
    clusters, truth, _ = some_answers(seed=1, images=8)
    answers = np.where(truth, "yes", "no")
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(size=len(truth)) + truth, rng.normal(size=len(truth))
    difference, limits = auc_difference(
        ours.tolist(), theirs.tolist(), answers.tolist(), clusters, seed=3, resamples=150
    )
    expected = [
        auc(ours[q].tolist(), answers[q].tolist()) - auc(theirs[q].tolist(), answers[q].tolist())
        for q in naive_draws(clusters, 3, 150)
    ]
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))
    assert difference == pytest.approx(auc(ours.tolist(), answers.tolist()) - auc(theirs.tolist(), answers.tolist()))


def test_paired_difference_draws_the_same_images_for_both():
    clusters, ours, theirs = some_answers()

    def share(sums):
        return sums[:, 0] / sums[:, 1]

    a, b = (np.stack([right, np.ones_like(right)], axis=1).astype(float) for right in (ours, theirs))
    difference, limits = paired_difference(a, b, clusters, share, seed=5, resamples=300)
    assert difference == pytest.approx(ours.mean() - theirs.mean())
    expected = [ours[q].mean() - theirs[q].mean() for q in naive_draws(clusters, 5, 300)]
    assert limits == pytest.approx(np.quantile(expected, [0.025, 0.975]))
    assert paired_difference(a, a, clusters, share, seed=5) == (0.0, (0.0, 0.0))


def test_the_interval_of_a_mean_agrees_with_its_standard_error():
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.8
    values = np.stack([right, np.ones_like(right)], axis=1).astype(float)
    low, high = bootstrap(values, [str(i) for i in range(4000)], lambda s: s[:, 0] / s[:, 1], seed=0)
    error = np.sqrt(right.mean() * (1 - right.mean()) / 4000)
    assert (low, high) == pytest.approx((right.mean() - 1.96 * error, right.mean() + 1.96 * error), abs=0.1 * error)


def test_questions_of_one_image_do_not_count_as_independent():
    right = np.repeat(np.random.default_rng(0).random(50) < 0.5, 6)
    values = np.stack([right, np.ones_like(right)], axis=1).astype(float)

    def width(clusters):
        low, high = bootstrap(values, clusters, lambda s: s[:, 0] / s[:, 1], seed=0)
        return high - low

    by_image, by_question = width([str(i // 6) for i in range(300)]), width([str(i) for i in range(300)])
    assert by_image == pytest.approx(np.sqrt(6) * by_question, rel=0.15)


def test_sums_by_cluster():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert by_cluster(values, ["b", "a", "b"]).tolist() == [[6.0, 8.0], [3.0, 4.0]]
    assert resampled(np.ones((4, 1)), seed=0, resamples=3).tolist() == [[4.0]] * 3
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)


def test_mcnemar_is_a_fair_coin_on_the_questions_that_differ():
    # 9 won, 2 lost: P(at most 2 or at least 9 heads of 11).
    ours = np.array([True] * 9 + [False] * 2 + [True] * 5 + [False] * 4)
    theirs = np.array([False] * 9 + [True] * 2 + [True] * 5 + [False] * 4)
    expected = 2 * sum(comb(11, heads) for heads in range(3)) / 2**11
    assert mcnemar(ours, theirs) == pytest.approx(expected)
    assert mcnemar(theirs, ours) == pytest.approx(expected)
    assert mcnemar(ours, ours) == 1.0


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.6 times 4, 3, 2, 1 and never falling.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_a_paired_difference_agrees_with_scipys():
    _, ours, theirs = some_answers(seed=2, images=150, each=1)
    gain = ours.astype(float) - theirs
    expected = scipy_bootstrap((gain,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0))
    a, b = (right.astype(float)[:, None] for right in (ours, theirs))
    clusters = [str(i) for i in range(150)]
    _, limits = paired_difference(a, b, clusters, lambda sums: sums[:, 0] / 150, seed=1, resamples=4000)
    assert limits == pytest.approx(expected.confidence_interval, abs=0.2 * expected.standard_error)


def test_mcnemar_agrees_with_swapping_the_methods_at_random():
    _, ours, theirs = some_answers(seed=3, images=14, each=1)
    gains = [int(a) - int(b) for a, b in zip(ours, theirs, strict=True) if a != b]
    sums = [
        abs(sum(sign * gain for sign, gain in zip(signs, gains, strict=True)))
        for signs in product((1, -1), repeat=len(gains))
    ]
    assert mcnemar(ours, theirs) == pytest.approx(np.mean([value >= abs(sum(gains)) for value in sums]))


@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_holm_rejects_what_stepping_down_rejects(level):
    values = np.random.default_rng(0).random(9) ** 4
    rejected = set()
    for rank, index in enumerate(np.argsort(values)):
        if values[index] > level / (len(values) - rank):
            break
        rejected.add(int(index))
    assert {i for i, p in enumerate(holm(values.tolist())) if p <= level} == rejected


def test_auc_equals_comparing_every_pair():
    rng = np.random.default_rng(0)
    for _ in range(20):
        margins = rng.integers(0, 6, size=40) / 2
        truths = rng.choice(["yes", "no"], size=40)
        pairs = [(a > b) + (a == b) / 2 for a in margins[truths == "yes"] for b in margins[truths == "no"]]
        assert auc(margins.tolist(), truths.tolist()) == pytest.approx(np.mean(pairs))
    assert auc([1.0, 2.0], ["yes", "yes"]) is None


def test_the_swap_test_counts_the_swaps_that_are_as_large():
    ours = np.array([[3.0, 4.0], [1.0, 4.0], [4.0, 4.0], [2.0, 4.0], [3.0, 4.0], [2.0, 2.0]])
    theirs = np.array([[1.0, 4.0], [2.0, 4.0], [1.0, 4.0], [2.0, 3.0], [1.0, 4.0], [1.0, 4.0]])

    def rate(sums):
        return sums[..., 0] / sums[..., 1]

    seen = abs(rate(ours.sum(axis=0)) - rate(theirs.sum(axis=0)))
    as_large = []
    for places in product((False, True), repeat=6):
        swapped = np.array(places)[:, None]
        one, other = np.where(swapped, theirs, ours), np.where(swapped, ours, theirs)
        as_large.append(abs(rate(one.sum(axis=0)) - rate(other.sum(axis=0))) >= seen - 1e-12)
    found = swap_test(ours, theirs, rate, seed=3, swaps=40_000)
    # Four standard errors of a share of 40,000 swaps.
    assert 0 < np.mean(as_large) < 0.5
    assert found == pytest.approx(np.mean(as_large), abs=0.01)
    assert swap_test(ours, ours, rate, seed=3) == 1.0
