"""Ablations report the values of their records, and measure each value once."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iava.evaluation.plan import Plan
from iava.lvlm.model import LVLM
from iava.studies.ablate import ABLATIONS, GENERAL_INSTRUCTIONS, default_values, run_ablation
from iava.studies.compare import selected_share
from tests import tiny
from tests.commands import refused, run
from tests.fakes import FakeLVLM

PLAN = Plan("tiny", {"iava": {"alpha": 0.5, "lam": -1.0}}, "tune-heldout", 2)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


@pytest.fixture(scope="module")
def ablated(lvlm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    return folder, run_ablation(lvlm, "i", PLAN, folder, [1, 0.5])


@pytest.mark.slow
def test_values_match_the_records(ablated, lvlm):
    folder, found = ablated
    greedy = {r["id"]: r for r in lines(next(folder.glob("greedy-*/records.jsonl")))}
    assert [one["value"] for one in found["tried"]] == [1, 0.5]
    for one in found["tried"]:
        assert (one["settings"]["top_i"], one["settings"]["alpha"], one["settings"]["lam"]) == (one["value"], 0.5, -1.0)
        records = lines(folder / one["folder"] / "records.jsonl")
        right = np.array([r["parsed"] == r["truth"] for r in records])
        greedy_right = np.array([greedy[r["id"]]["parsed"] == r["truth"] for r in records])
        assert one["metrics"]["accuracy"] == pytest.approx(right.mean())
        assert one["comparison"]["difference"] == pytest.approx(right.mean() - greedy_right.mean())
        assert one["selected"][0] == pytest.approx(np.mean([r["selected"] for r in records]))
    assert found["tried"][0]["selected"][0] <= 1 / 9 < found["tried"][1]["selected"][0]
    assert all("selected" not in record for record in greedy.values())
    assert json.loads((folder / "results.json").read_text())["tried"][1]["selected"][0] == one["selected"][0]


def test_the_selected_share_matches_the_explanation(ablated, lvlm):
    from iava.benchmarks.sources.pocket import pocket

    folder, found = ablated
    one = found["tried"][1]
    task = pocket("pope", "tune-heldout", 1)
    shares = {r["question"]: r["selected"] for r in lines(folder / one["folder"] / "records.jsonl")}
    asked = [question.question for question in task.questions[:2]]
    answers = lvlm.ask_many(task.open_image(task.images[0]), asked, explain=True, max_new_tokens=1, top_i=0.5, lam=-1.0)
    for question, answer in zip(asked, answers, strict=True):
        assert shares[question] == pytest.approx(answer.explanation.selected.float().mean().item(), abs=1e-6)


def test_the_table_and_the_plot(ablated):
    folder, found = ablated
    table = (folder / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == ["top\\_i", "---", "greedy (control)", "1", "0.5"]
    assert f"{100 * found['tried'][1]['metrics']['accuracy']:.1f}" in rows[-1]
    assert Image.open(folder / "plot.png").width > 500


@pytest.mark.slow
def test_a_second_call_measures_only_new_values(ablated, lvlm, monkeypatch):
    folder, found = ablated
    asked = []
    ask_many = LVLM.ask_many
    monkeypatch.setattr(
        LVLM,
        "ask_many",
        lambda self, *a, method, **k: asked.append(method.top_i) or ask_many(self, *a, method=method, **k),
    )
    drawn = (folder / "plot.png").read_bytes()
    assert run_ablation(lvlm, "i", PLAN, folder, [1, 0.5])["tried"] == found["tried"]
    assert asked == []
    assert (folder / "plot.png").read_bytes() == drawn
    more = run_ablation(lvlm, "i", PLAN, folder, [0.5, "auto"])
    assert (asked, more["tried"][0]) == (["auto"] * 2, found["tried"][1])


def test_the_interval_of_the_share_is_over_images():
    records = [{"image": image, "selected": share} for image, share in (("a", 0.1), ("a", 0.3), ("b", 0.8))]
    share, (low, high) = selected_share(records, seed=0)
    assert share == pytest.approx(0.4)
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.8))
    assert selected_share([{"image": "a"}], seed=0) == (None, None)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_method_accepts_all_default_values(ablation, lvlm):
    values, setting = default_values(ablation, lvlm.model), ABLATIONS[ablation]
    settings = [lvlm.method("iava", **{setting: value}).settings()[setting] for value in values]
    assert settings == values
    assert len({str(value) for value in values}) == len(values) >= 4


def test_default_layers_are_those_of_the_model():
    four = tiny.model(layers=4)
    assert default_values("layers", four) == ["all", [0, 1], [2, 3], [0], [1], [2], [3]]
    assert GENERAL_INSTRUCTIONS[0] == "Describe this image."


class TestCommand:
    @pytest.mark.slow
    def test_a_whole_run(self, tmp_path, monkeypatch):
        monkeypatch.setattr("iava.lvlm.loading.load", lambda name: FakeLVLM())
        options = ("--split", "tune-heldout", "--limit", 2, "--alpha", "0.5")
        result = run("ablate", "beta", "--value", "0.1", "--value", "0.5", *options, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        found = json.loads((tmp_path / "results.json").read_text())
        assert [one["settings"]["beta"] for one in found["tried"]] == [0.1, 0.5]
        assert [one["settings"]["alpha"] for one in found["tried"]] == [0.5, 0.5]
        assert (tmp_path / "table.md").read_text() in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["gamma"], "unknown ablation 'gamma': use one of i, lambda"),
            (["alpha", "--value", "-1"], "alpha is -1.0"),
            (["i", "--value", "few"], "top_i is 'few'"),
            (["i", "--limit", "0"], "limit is 0"),
            (["i", "--model", "other"], "--data is missing"),
            (["i", "--set", "gamma=3"], "no such setting"),
        ],
    )
    def test_bad_input(self, arguments, words, tmp_path):
        folder = Path(tmp_path) / "new"
        assert words in refused("ablate", *arguments, "--out", folder)
        assert not folder.exists()
