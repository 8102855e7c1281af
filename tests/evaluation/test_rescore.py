"""A run that is read again has the numbers of a run with that parser."""

import json

import pytest

from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.rescore import rescore
from iava.evaluation.runner import evaluate
from iava.evaluation.runs import read_runs
from tests.commands import refused, run
from tests.fakes import FakeLVLM

METHODS = {"greedy": {}, "apc": {}, "iava": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    evaluate(FakeLVLM(), Plan("fake", METHODS, split="tune-heldout", limit=6), place)
    return place


@pytest.mark.parametrize("parser", ["pope", "opera", "vcd", "exact"])
@pytest.mark.slow
def test_rescored_rows_are_those_of_a_run_with_the_parser(folder, tmp_path, parser):
    again = rescore(folder, parser, tmp_path / "again")
    plan = Plan("fake", METHODS, split="tune-heldout", limit=6, parser=parser)
    expected = evaluate(FakeLVLM(), plan, tmp_path / "asked")
    assert again["rows"] == expected["rows"]
    [read] = read_runs([tmp_path / "again"])
    assert read.rows == expected["rows"]
    assert (read.settings["parser"], read.manifests[0]["rescored_from"]) == (parser, "word")


def test_the_command_prints_the_table_and_writes_only_if_asked(folder, tmp_path):
    before = sorted(folder.iterdir())
    shown = run("rescore", folder, "--parser", "pope")
    assert shown.exit_code == 0, shown.output
    assert "greedy" in shown.stdout
    assert sorted(folder.iterdir()) == before
    assert "is in use: choose a new folder" in refused("rescore", folder, "--parser", "pope", "--out", folder)
    assert "unknown parser 'vague' for pope" in refused("rescore", folder, "--parser", "vague")
    assert "substring is gone" in refused("rescore", folder, "--parser", "substring")


def test_captions_have_no_parser(tmp_path):
    evaluate(FakeLVLM(), Plan("fake", {"greedy": {}}, split="tune-heldout", limit=2, benchmark="chair"), tmp_path)
    with pytest.raises(IavaError, match="holds answers to chair, which no parser reads"):
        rescore(tmp_path, "word")


def test_an_edited_results_file_changes_nothing(folder, tmp_path):
    [before] = read_runs([folder])
    kept = (folder / "results.json").read_text()
    results = json.loads(kept)
    for row in results["rows"]:
        row["metrics"] = dict.fromkeys(row["metrics"], 0.123)
    (folder / "results.json").write_text(json.dumps(results))
    [after] = read_runs([folder])
    (folder / "results.json").write_text("nonsense")
    [broken] = read_runs([folder])
    (folder / "results.json").write_text(kept)
    assert before.rows == after.rows == broken.rows
