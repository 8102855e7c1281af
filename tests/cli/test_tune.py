"""`iava tune`: a search, its tune.json in `iava eval`, and bad input."""

import json
import shlex

import pytest

from tests.commands import refused, run
from tests.fakes import FakeLVLM

NO_MODEL = ("--model", "no/such/model")
"""Loading it fails: bad input that is reported with it was found first."""


def test_finds_and_writes_settings_that_eval_takes(monkeypatch, tmp_path):
    monkeypatch.setattr("iava.lvlm.loading.load", lambda name: FakeLVLM())
    search = (
        "tune",
        "bias",
        "--model",
        "another",
        "--split",
        "tune-heldout",
        "--limit",
        "3",
        "--grid",
        "bias=-2,3",
        "--out",
        tmp_path,
    )
    result = run(*search)
    assert result.exit_code == 0, result.output
    assert "best accuracy" in result.stdout
    assert f"--methods greedy,bias --split test-heldout --settings {tmp_path / 'tune.json'}" in result.stdout
    following = shlex.split(result.stdout.split("next: iava ")[1])[:-2]
    assert run(*following, "--limit", "2", "--out", tmp_path / "next").exit_code == 0
    best = json.loads((tmp_path / "tune.json").read_text())["best"]
    evaluation = ("eval", "pope", "--methods", "greedy,bias", "--limit", "2", "--settings", tmp_path / "tune.json")
    used = run(*evaluation, "--split", "tune", "--out", tmp_path / "run")
    assert used.exit_code == 0, used.output
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["settings"]["bias"] for row in rows if row["method"] == "bias"} == {best["bias"]}
    over = run(*evaluation, "--set", "bias=0.75", "--split", "tune", "--out", tmp_path / "over")
    assert over.exit_code == 0, over.output
    rows = json.loads((tmp_path / "over" / "results.json").read_text())["rows"]
    assert {row["settings"]["bias"] for row in rows if row["method"] == "bias"} == {0.75}
    same = refused(*evaluation, "--split", "tune-heldout", "--out", tmp_path / "same")
    assert "was tuned on tune-heldout: report on another split" in same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["iava", "--split", "test"], "split is 'test': settings are chosen on one of tune, tune-heldout"),
        (["magic"], "unknown method 'magic'"),
        (["iava", "--grid", "gamma=1,2"], "method iava has no setting 'gamma': use one of general"),
        (["iava", "--grid", "alpha=1,-2"], "alpha is -2.0"),
        (["iava", "--grid", "alpha"], "--grid is 'alpha': write NAME=VALUE"),
        (["iava", "--limit", "0"], "limit is 0"),
        (["iava", "--maximise", "luck"], "maximise is 'luck'"),
        (["greedy"], "there is no grid for greedy: it has no settings"),
        (["iava", "--out", "/proc/run"], "cannot write to /proc/run"),
    ],
)
def test_bad_options(tmp_path, options, words):
    folder = tmp_path / "search"
    assert words in refused("tune", *NO_MODEL, "--out", folder, *options)
    assert not folder.exists()
