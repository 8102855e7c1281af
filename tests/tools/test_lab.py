"""What the lab fits on tuning splits and reports on test splits, by hand."""

import numpy as np
import pytest

from iava.pocket.prior import log_odds
from iava.pocket.scenes import load_scene
from tools import lab

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
    cells = lab.line(ours, greedy, greedy, ideal=0.9, clean=1.0)
    # Greedy decoding: 3 of 6 are right, and "yes" wins 1 + 1 = 2, 3, 1 of 3 pairs. Ours: 5 of 6, and 3, 3,
    # and 1 with a tie.
    base, own = (2 + 3 + 1) / 9, (3 + 3 + 1.5) / 9
    assert cells[0] == f"{100 * 5 / 6:.1f}"
    assert cells[1].startswith(f"{100 / 6:+.1f} [")
    assert cells[2] == f"{100 * own:.1f}"
    assert cells[3].startswith(f"{100 * (own - base):+.1f} [")
    assert cells[-2:] == [f"{100 * (own - base) / (0.9 - base):.0f}", f"{100 * (own - base) / (1 - base):.0f}"]
