"""Margins under each view against the methods that contrast with it, and what follows from margins by hand."""

import json

import numpy as np
import pytest

from iava import IAVA, VCD, Greedy
from iava.evaluation.plan import Plan
from iava.lvlm.model import LVLM
from iava.methods.controls_restore import Restore
from iava.methods.words import yes_no_logits
from iava.studies.evidence import VIEWS, run_evidence_study, view_outcomes
from tests import tiny

SETTINGS = {"top_i": 0.5, "lam": -1.0}


class ContrastAlone(VCD):
    """What the contrast branch of VCD says."""

    def combine(self, main, contrast_logits, step):
        return contrast_logits[0]


class IAVAContrastAlone(IAVA):
    """What the contrast branch of IAVA says."""

    def combine(self, main, contrast_logits, step):
        return contrast_logits[0]


METHODS = {
    "image": Greedy(),
    "blur 0.01": ContrastAlone(kind="blur", strength=0.01, beta=0.0),
    "fog 0.3": ContrastAlone(kind="fog", strength=0.3, beta=0.0),
    "noise, step 500": ContrastAlone(step=500, beta=0.0),
    "attended blurred": IAVAContrastAlone(**SETTINGS, negative="blur", strength=0.01, beta=0.0),
    "restored": Restore(),
}
"""View -> a method whose logits are those of the view."""


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def margin(lvlm, image, question, method):
    answer = lvlm.ask(image, question, method=method, max_new_tokens=1)
    yes, no = yes_no_logits(answer.logits[None], lvlm.processor.tokenizer)[0].tolist()
    return yes - no


@pytest.mark.slow
def test_margins_are_those_of_the_methods(lvlm, tmp_path):
    plan = Plan("tiny", {"greedy": {}, "iava": SETTINGS}, "tune-blur", 1)
    results = run_evidence_study(lvlm, plan, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert len(rows) == len(plan.task.questions)
    row, image = rows[0], plan.task.open_image(plan.task.images[0])
    assert tuple(row["margins"]) == VIEWS
    for view, method in METHODS.items():
        assert row["margins"][view] == pytest.approx(margin(lvlm, image, row["question"], method), abs=1e-3), view
    assert [one["view"] for one in results["outcomes"]] == list(VIEWS[1:])
    # A finished study reads nothing again.
    before = (tmp_path / "records.jsonl").read_bytes()
    assert run_evidence_study(lvlm, plan, tmp_path)["outcomes"] == results["outcomes"]
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_outcomes_by_hand():
    truths = ["yes", "no", "yes", "no"]
    image, text = [3.0, 1.0, 0.5, -2.0], [-1.0] * 4
    # The view's margin is large where the image's is misleading.
    view = [0.0, 12.0, -2.0, 0.0]
    margins = {name: [0.0] * 4 for name in VIEWS} | {"image": image, "blur 0.01": view, "text": text}
    rows = [
        {"image": f"i{n}", "truth": truth, "margins": {name: values[n] for name, values in margins.items()}}
        for n, truth in enumerate(truths)
    ]
    found = next(one for one in view_outcomes(rows, seed=0) if one["view"] == "blur 0.01")
    # Alone: one "yes" ties with one "no", and the other lies below both.
    assert found["alone"] == [0.5 / 4, 0.25]
    # a = 0.1: 3.0, -0.2, 0.7, -2.0 ranks all questions, and greedy decoding ranks three of four pairs.
    assert (found["share"], found["auc"], found["accuracy"]) == (0.1, 1.0, 1.0)
    assert found["gain"][0] == pytest.approx(0.25)
    assert found["best"][0] == pytest.approx(0.25)
    # Centred: 2.9, -0.3, 0.6, -2.1.
    assert found["centred"] == 1.0
    # Only the margins 1.0 and 0.5 lie below the median of 1.5.
    assert found["unsure"] == 1.0
    assert np.isfinite(found["gain"][1]).all()
