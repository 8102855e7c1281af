"""Every method gets the same number of tries on a split for tuning, and what is found can be traced to its records."""

import json

import numpy as np
import pytest

from iava.evaluation.tune import BUDGET, GRIDS, SearchSpace, read_tuned, tune
from iava.methods import METHODS
from iava.metrics.stats import auc
from tests.fakes import FakeLVLM

GRID = {"bias": [-3.0, 1.0, 4.0]}
SPACE = SearchSpace("fake", "bias", GRID, split="tune-heldout", limit=4)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, tune(FakeLVLM(), SPACE, folder)


def by_hand(folder, tried):
    """Accuracy, F1 and AUC from the records."""
    records = [json.loads(line) for line in (folder / tried["folder"] / "records.jsonl").read_text().splitlines()]
    truth = np.array([record["truth"] == "yes" for record in records])
    said = np.array([record["parsed"] == "yes" for record in records])
    right = np.mean([record["parsed"] == record["truth"] for record in records])
    margins = [record["yes"] - record["no"] for record in records]
    f1 = 2 * (truth & said).sum() / (truth.sum() + said.sum())
    return right, f1, auc(margins, [record["truth"] for record in records])


def test_the_best_of_all_that_was_tried(searched):
    folder, found = searched
    assert [one["settings"]["bias"] for one in found["tried"]] == [0.0, -3.0, 1.0, 4.0]
    scores = [by_hand(folder, one) for one in found["tried"]]
    for one, (accuracy, f1, area) in zip(found["tried"], scores, strict=True):
        assert one["metrics"]["accuracy"] == pytest.approx(accuracy)
        assert one["metrics"]["f1"] == pytest.approx(f1)
        assert one["metrics"]["auc"] == pytest.approx(area)
    assert len({accuracy for accuracy, *_ in scores}) > 1
    best = max(range(4), key=lambda n: scores[n][0])
    assert found["best"] == found["tried"][best]["settings"]
    assert json.loads((folder / "tune.json").read_text()) == found


def test_another_number_may_be_maximised(searched):
    folder, found = searched
    lvlm = FakeLVLM()
    again = tune(lvlm, SearchSpace("fake", "bias", GRID, split="tune-heldout", limit=4, maximise="f1"), folder)
    assert lvlm.asked == []
    scores = [by_hand(folder, one)[1] for one in again["tried"]]
    assert again["best"] == again["tried"][int(np.argmax(scores))]["settings"]
    assert again["tried"] == found["tried"]


@pytest.mark.slow
def test_a_stopped_search_goes_on_and_a_larger_grid_adds_to_it(searched, tmp_path):
    _, found = searched
    stops = 0
    for _ in range(20):
        try:
            again = tune(FakeLVLM(stop_after=25), SPACE, tmp_path)
            break
        except KeyboardInterrupt:
            stops += 1
            assert not (tmp_path / "tune.json").exists()
    assert stops > 2
    assert again["tried"] == found["tried"]
    lvlm = FakeLVLM()
    more = tune(lvlm, SearchSpace("fake", "bias", {"bias": [1.0, 2.0]}, split="tune-heldout", limit=4), tmp_path)
    assert [one["settings"]["bias"] for one in more["tried"]] == [0.0, 1.0, 2.0]
    # Only the new value was asked about.
    assert len(lvlm.asked) == len(asked_once(tmp_path))
    with pytest.raises(ValueError, match="limit is 4 there, 3 here"):
        tune(FakeLVLM(), SearchSpace("fake", "bias", GRID, split="tune-heldout", limit=3), tmp_path)


def asked_once(folder):
    """(image, question) of one setting's records."""
    first = next(folder.glob("bias-*/records.jsonl"))
    return {(r["image"], r["question"]) for r in map(json.loads, first.read_text().splitlines())}


@pytest.mark.parametrize("name", sorted(GRIDS.keys() & METHODS.keys()))
def test_every_method_gets_the_same_number_of_tries(name):
    tried = SearchSpace("fake", name).settings()
    assert len(tried) == BUDGET
    assert tried[0] == METHODS[name]().settings()
    assert len({json.dumps(settings) for settings in tried}) == BUDGET
    assert SearchSpace("fake", name).settings() == tried


def test_a_grid_larger_than_the_budget_is_tried_in_part():
    grid = {"alpha": [0.1, 0.2, 0.3], "beta": [0.1, 0.2, 0.3]}
    few = SearchSpace("fake", "no-image", grid, budget=4).settings()
    every = SearchSpace("fake", "no-image", grid, budget=99).settings()
    assert (len(few), len(every)) == (4, 10)
    assert few[0] == every[0] == METHODS["no-image"]().settings()
    assert [settings for settings in every if settings in few] == few
    assert SearchSpace("fake", "no-image", grid, budget=4, seed=1).settings() != few


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"split": "test"},
            "split is 'test': settings are chosen on one of tune, tune-heldout, and reported on another",
        ),
        ({"method": "magic"}, "unknown method 'magic': use one of greedy"),
        ({"method": "greedy"}, "there is no grid for greedy: it has no settings"),
        ({"method": "prompt-bias"}, "there is no grid for prompt-bias: give --grid with some of hint"),
        ({"maximise": "recall"}, "maximise is 'recall': it must be one of accuracy, auc, f1"),
        ({"budget": 0}, "budget is 0"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_searches_that_cannot_be_made(change, words):
    with pytest.raises(ValueError, match=words):
        SearchSpace(**{"model": "fake", "method": "iava", **change})


def test_values_out_of_range_are_refused_before_anything_is_tried():
    with pytest.raises(ValueError, match=r"alpha is -1\.0"):
        SearchSpace("fake", "iava", {"alpha": [0.5, -1.0]}).settings()


def test_what_was_found_is_read_for_another_split(searched, tmp_path):
    path = searched[0] / "tune.json"
    best = json.loads(path.read_text())["best"]
    assert read_tuned([path], ["greedy", "bias"], "test") == {"bias.bias": best["bias"]}
    with pytest.raises(ValueError, match=r"tune\.json was tuned on tune-heldout: report on another split"):
        read_tuned([path], ["bias"], "tune-heldout")
    with pytest.raises(ValueError, match=r"is about bias, which is not among the methods: greedy"):
        read_tuned([path], ["greedy"], "test")
    for content in ("", "[]", "{}", '{"method": "bias", "split": "tune", "best": 3}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=r"bad\.json is no tune\.json of `iava tune`"):
            read_tuned([tmp_path / "bad.json"], ["bias"], "test")
    with pytest.raises(ValueError, match="is no tune"):
        read_tuned([tmp_path / "none.json"], ["bias"], "test")
