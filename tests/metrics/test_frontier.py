"""The frontier of controls, matching and distances, on tables that were worked by hand."""

import numpy as np
import pytest

from iava.metrics.frontier import (
    CHAIR_I,
    RATIOS,
    caption_sums,
    curve,
    distance,
    lowest,
    match,
    mixture,
    resampled_totals,
)

RECALL, F1, THINGS = RATIOS["recall"], RATIOS["object_f1"], RATIOS["things"]


def record(text, said, there):
    return {"text": text, "parsed": said, "truth": there}


def test_a_caption_counted_by_hand():
    records = [
        # Two mentions of the dog, one of an absent cow: 3 mentions, 1 wrong, 2 different things, 1 of 2 there.
        record("A dog, a dog and a cow.", ["dog", "dog", "cow"], ["dog", "tree"]),
        record("Nothing.", [], ["cat"]),
    ]
    assert caption_sums(records).tolist() == [[1, 3, 1, 2, 1, 2, 7], [1, 0, 0, 1, 0, 0, 1]]
    total = caption_sums(records).sum(axis=0)
    found = {name: float(ratio.of(total)) for name, ratio in RATIOS.items()}
    # F1: precision 1/2, recall 1/3, so 2 * (1/6) / (5/6).
    expected = {"chair_i": 1 / 3, "recall": 1 / 3, "object_f1": 2 / 5, "things": 3 / 2, "words": 4.0}
    assert found == pytest.approx(expected)
    assert caption_sums([]).shape == (0, 7)


# captions, mentions, wrong, objects, hits, named, words: three controls on ten images with forty things.
#           recall   CHAIRi
SHORT = (10, 20, 2, 40, 16, 20, 60)  # 16/40 = .4   2/20 = .10
LONG = (10, 60, 30, 40, 32, 60, 150)  # 32/40 = .8  30/60 = .50
POOR = (10, 40, 30, 40, 10, 40, 100)  # 10/40 = .25 30/40 = .75
CONTROLS = np.array([SHORT, LONG, POOR], dtype=float)


@pytest.mark.parametrize(
    ("ratio", "value", "expected", "parts"),
    [
        # Below the shortest control it still serves: it names more at the same CHAIRi.
        (RECALL, 0.3, 0.10, {0: 1.0}),
        (RECALL, 0.4, 0.10, {0: 1.0}),
        # Recall .6 is 24 hits: half of each, 11 + 5 = 16 wrong of 40 mentions.
        (RECALL, 0.6, 16 / 40, {0: 0.5, 1: 0.5}),
        # Recall .7 is 28 hits: a quarter of the short one, .5 + 22.5 = 23 wrong of 5 + 45 = 50 mentions.
        (RECALL, 0.7, 23 / 50, {0: 0.25, 1: 0.75}),
        (RECALL, 0.8, 0.50, {1: 1.0}),
        (RECALL, 0.9, None, {}),
        # Three things a caption are 30 mentions: three quarters of the short one, 1.5 + 7.5 = 9 wrong.
        (THINGS, 3.0, 9 / 30, {0: 0.75, 1: 0.25}),
        # F1 of the short one is 2*16/60 = 8/15, of the long one 2*32/100 = .64. Halved: 2*24/80 = .6.
        (F1, 0.6, 16 / 40, {0: 0.5, 1: 0.5}),
    ],
)
def test_the_frontier_worked_by_hand(ratio, value, expected, parts):
    parts_found = match(CONTROLS, ratio, value)
    found = lowest(CONTROLS[:, None], ratio, np.array([value]))[0]
    assert dict(parts_found) == pytest.approx(parts)
    if expected is None:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(expected)
        mixed = mixture(CONTROLS, parts_found)
        assert CHAIR_I.of(mixed) == pytest.approx(expected)
        if len(parts) == 2:
            assert ratio.of(mixed) == pytest.approx(value)


def test_no_mixture_of_a_fine_grid_is_below_the_frontier():
    rng = np.random.default_rng(0)
    columns = [rng.integers(20, 60, 5), rng.integers(1, 20, 5), np.full(5, 40), rng.integers(5, 40, 5)]
    controls = np.column_stack([np.full(5, 10), *columns, columns[0], np.full(5, 100)]).astype(float)
    for value in (0.2, 0.35, 0.5):
        best = np.inf
        for shares in rng.dirichlet(np.full(5, 0.3), 20_000):
            total = shares @ controls
            if total[4] / total[3] >= value:
                best = min(best, total[2] / total[1])
        found = lowest(controls[:, None], RECALL, np.array([value]))[0]
        assert found <= best + 1e-12
        assert found == pytest.approx(best, abs=0.01)


def test_silence_does_not_move_the_frontier():
    silent = np.array([(10, 0, 0, 40, 0, 0, 0)], dtype=float)
    for value in (0.1, 0.4, 0.6):
        at = np.array([value])
        alone = lowest(CONTROLS[:, None], RECALL, at)
        assert lowest(np.concatenate([CONTROLS, silent])[:, None], RECALL, at) == pytest.approx(alone)


def sums_of(rows, images, seed):
    """Captions of each image, by chance, that add up to rows of hits and wrong mentions per image."""
    rng = np.random.default_rng(seed)
    settings = []
    for hits, wrong in rows:
        right, bad = rng.binomial(4, hits / 4, images), rng.binomial(4, wrong / 4, images)
        both = right + bad
        settings.append(np.stack([np.ones(images), both, bad, np.full(images, 4), right, both, both], axis=1))
    return np.array(settings, dtype=float)


def test_a_method_equal_to_a_control_has_no_distance_and_a_better_one_has():
    controls = sums_of([(1.5, 0.5), (3.0, 2.0)], 300, 0)
    draws = resampled_totals(controls, seed=1)
    same = distance(controls[0], controls, (draws[0], draws), RECALL, seed=1)
    assert (same.difference, same.p, same.controls) == (0.0, 1.0, [(0, 1.0)])
    better = sums_of([(2.5, 0.5)], 300, 5)
    found = distance(better[0], controls, (resampled_totals(better, seed=1)[0], draws), RECALL, seed=1)
    total, frontier = better[0].sum(axis=0), controls.sum(axis=1)
    recall, (low, high) = total[4] / total[3], frontier[:, 4] / frontier[:, 3]
    share = (high - recall) / (high - low)
    wrong, mentions = (share * frontier[0, k] + (1 - share) * frontier[1, k] for k in (2, 1))
    assert found.difference == pytest.approx(total[2] / total[1] - wrong / mentions)
    assert found.interval[0] < found.difference < found.interval[1] < 0
    assert found.p == pytest.approx(1 / 10_001)
    assert dict(found.controls) == pytest.approx({0: share, 1: 1 - share})


def test_no_control_reaches_a_method_that_names_more():
    controls = sums_of([(1.0, 0.5), (2.0, 1.0)], 50, 0)
    own = sums_of([(3.9, 3.0)], 50, 1)
    draws = resampled_totals(controls, seed=1)
    assert distance(own[0], controls, (resampled_totals(own, seed=1)[0], draws), RECALL, seed=1) is None


def test_a_curve_runs_from_the_least_to_the_most_and_passes_through_the_settings():
    sums = sums_of([(1.0, 0.2), (2.0, 0.8), (3.0, 2.0)], 200, 3)
    found = curve(sums, resampled_totals(sums, seed=2), RECALL, steps=5)
    values = [value for value, _, _ in found]
    totals = sums.sum(axis=1)
    recalls, chairs = totals[:, 4] / totals[:, 3], totals[:, 2] / totals[:, 1]
    assert values == sorted(values)
    assert (values[0], values[-1]) == pytest.approx((recalls.min(), recalls.max()))
    at = {round(value, 9): (estimate, limits) for value, estimate, limits in found}
    for recall, chair in zip(recalls, chairs, strict=True):
        estimate, (low, high) = at[round(recall, 9)]
        assert estimate == pytest.approx(chair)
        assert low < chair < high
