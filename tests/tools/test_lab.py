"""What the lab fits on tuning splits and reports on test splits, by hand."""

import numpy as np
import pytest

from iava.pocket.prior import log_odds
from iava.pocket.scenes import load_scene
from tools import lab, lab_tables

SCENES = [load_scene("tune", index) for index in range(6)]


def records(margins, truths, names):
    return {
        f"q{n}": {
            "id": f"q{n}",
            "image": SCENES[n].id,
            "question": f"Is there a {name} in the image?",
            "truth": truth,
            "method": "greedy",
            "yes": margin + 1.0,
            "no": 1.0,
            "parsed": "yes" if margin > 0 else "no",
        }
        for n, (margin, truth, name) in enumerate(zip(margins, truths, names, strict=True))
    }


TRUTHS = ["yes", "no", "yes", "no", "yes", "no"]
NAMES = ["cow", "cup", "dog", "fork", "car", "boat"]


def test_the_bias_separates_the_truths():
    rows = records([3.0, 1.0, 4.0, 1.5, 2.5, -1.0], TRUTHS, NAMES)
    assert lab.fitted_bias(rows) == pytest.approx(-2.0)
    shifted = lab.shifted(rows, -2.0, "bias")
    assert [row["parsed"] for row in shifted.values()] == TRUTHS


def test_the_weight_removes_what_the_context_adds():
    known = np.array([log_odds(scene.context, name) for scene, name in zip(SCENES, NAMES, strict=True)])
    assert np.array_equal(lab.priors(records([0.0] * 6, TRUTHS, NAMES)), known)
    evidence = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    rows = records((0.1 * evidence + 0.7 * known).tolist(), TRUTHS, NAMES)
    weight = lab.fitted_weight(rows)
    rest = np.array(lab.margins(rows)) - weight * known
    assert rest[evidence > 0].min() > rest[evidence < 0].max()


def test_a_line_compares_with_greedy_decoding_and_the_wholes():
    greedy = records([1.0, 2.0, 3.0, -1.0, -2.0, -3.0], TRUTHS, NAMES)
    ours = records([1.0, -2.0, 3.0, -1.0, -2.0, -3.0], TRUTHS, NAMES)
    found = lab_tables.line(ours, greedy, greedy, ideal=0.9, clean=1.0)
    # Greedy decoding: 4 of 6 are right, and "yes" wins 1 + 1 = 2, 3, 1 of 3 pairs. Ours: 5 of 6, and 3, 3,
    # and 1 with a tie.
    base, own = (2 + 3 + 1) / 9, (3 + 3 + 1.5) / 9
    assert (found.accuracy, found.auc) == pytest.approx((5 / 6, own))
    assert (found.against_control[0], found.auc_gain[0]) == pytest.approx((1 / 6, own - base))
    assert (found.of_ideal, found.of_lost) == pytest.approx(((own - base) / (0.9 - base), (own - base) / (1 - base)))
    # Zero is a best threshold of both.
    assert (found.calibrated, found.calibrated_gain[0]) == pytest.approx((5 / 6, 1 / 6))


def test_a_mark_needs_every_model():
    up, down, open_ = (0.1, (0.05, 0.2)), (-0.1, (-0.2, -0.05)), (0.1, (-0.05, 0.2))
    cells = {}
    for name, differences in {"up": [up, up], "down": [down, down], "open": [up, open_], "mixed": [up, down]}.items():
        cells[name] = [lab_tables.Line(0.5, one, 0.7 + one[0], one, 0.5, one, one, None, None) for one in differences]
    found = lab_tables.at_a_glance(
        {"": cells, "blur": cells}, lambda one: f"{one.auc:.1f}", lambda one: one.auc_gain, dict.fromkeys(cells, "2.00")
    )
    assert found.splitlines() == [
        "| method | `test` | `test-blur` | cost |",
        "| --- | --- | --- | --- |",
        "| up | 0.8<br>0.8 ▲ | 0.8<br>0.8 ▲ | 2.00 |",
        "| open | 0.8<br>0.8 | 0.8<br>0.8 | 2.00 |",
        "| mixed | 0.8<br>0.6 | 0.8<br>0.6 | 2.00 |",
        "| down | 0.6<br>0.6 ▼ | 0.6<br>0.6 ▼ | 2.00 |",
    ]
