"""Settings of methods by name: what is given on the command line is what the methods get."""

import json
from collections.abc import Sequence

import pytest

from iava.cli import app as cli
from iava.cli.settings import method_names, read_value, settings_of
from iava.lvlm import model as lvlm
from iava.methods import METHODS
from tests import tiny
from tests.commands import refused, run
from tests.fakes import FakeLVLM

QUESTION = "Is there a dog in the image ?"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    tiny.image().save(path)
    return str(path)


@pytest.fixture
def with_none(monkeypatch):
    def load(model):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(cli, "_load", load)


def test_the_names_are_those_of_the_table():
    assert method_names() == list(METHODS)
    assert all(name in " ".join(run("ask", "--help").output.split()) for name in ("greedy", "no-image"))


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("40", int | float, 40),
        ("0.5", int | float, 0.5),
        ("1", float, 1.0),
        ("-1e-3", float | None, -1e-3),
        ("none", float | None, None),
        ("none", str, "none"),
        ("True", bool, True),
        ("true", str, "true"),
        ("all", str | Sequence[int], "all"),
        ("0,1,-1", str | Sequence[int], [0, 1, -1]),
        ("7", str | Sequence[int], [7]),
        ("7", str, "7"),
        ("much", float, "much"),
        ("5.5", int, "5.5"),
    ],
)
def test_texts_are_read_as_the_hint_says(text, hint, value):
    read = read_value(text, hint)
    assert (read, type(read)) == (value, type(value))


def test_what_is_said_of_one_method_counts_more():
    names = ["greedy", "iava", "no-image"]
    found = settings_of(
        names, {"alpha": 2.0, "no-image.beta": 0.5}, {"iava.alpha": "0.25", "layers": "0,1", "beta": "0.2"}
    )
    assert found == {
        "greedy": {},
        "iava": {"alpha": 0.25, "beta": 0.2, "layers": [0, 1]},
        "no-image": {"alpha": 2.0, "beta": 0.2},
    }


def test_every_setting_of_every_method_can_be_given_as_a_text():
    for name, method in METHODS.items():
        for setting, value in method().settings().items():
            assert settings_of([name], {setting: str(value)}) == {name: {setting: value}}


def test_set_reaches_the_methods(picture, monkeypatch):
    monkeypatch.setattr(cli, "_load", lambda model: lvlm.LVLM(tiny.model(), tiny.processor()))
    options = ("--compare", "iava,no-image,sample", "--alpha", "0.5", "--set", "no-image.alpha=2")
    found = json.loads(
        run("ask", picture, QUESTION, *options, "--set", "top-p=0.5", "--set", "top_i=3", "--json").stdout
    )
    iava, none, sample = (one["settings"] for one in found)
    assert (iava["alpha"], iava["top_i"], none["alpha"], sample["top_p"]) == (0.5, 3, 2.0, 0.5)


@pytest.mark.usefixtures("with_none")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "alpha"], "--set is 'alpha': write NAME=VALUE"),
        (["--set", "alpha="], "--set is 'alpha='"),
        (["--set", "alpha=-1"], "alpha is -1.0: it must be a number, at least 0"),
        (["--set", "alpha=much"], "alpha is 'much': it must be a number, at least 0"),
        (["--set", "nothing=1"], "--set nothing was given, but iava has no such setting: use one of general, top_i"),
        (["--set", "greedy.alpha=1"], "--set greedy.alpha was given, but 'greedy' is not among the methods: iava"),
        (["--set", "iava.step=1"], "--set iava.step was given, but iava has no such setting"),
        (["--method", "greedy", "--set", "step=1"], "greedy has no such setting: there is none"),
        (["--method", "oracle", "--set", "beta=2"], "beta is 2.0"),
    ],
)
def test_what_cannot_be_set(picture, options, words):
    assert words in refused("ask", picture, QUESTION, *options)


def test_methods_lists_them():
    listed = json.loads(run("methods", "--json").stdout)
    assert [one["name"] for one in listed] == list(METHODS)
    by_name = {one["name"]: one for one in listed}
    assert by_name["iava"]["settings"] == METHODS["iava"]().settings()
    assert (by_name["iava"]["paper"], by_name["iava"]["title"], by_name["iava"]["control"]) == (
        "2503.18556",
        "IAVA",
        False,
    )
    assert (by_name["greedy"]["cost"], by_name["no-image"]["cost"]) == ("1", "2 in one batch")
    shown = run("methods").stdout
    for one in listed:
        assert one["name"] in shown
        assert one["paper"] is None or one["paper"] in shown


class TestTune:
    def test_finds_writes_and_says_how_to_use_it(self, monkeypatch, tmp_path):
        monkeypatch.setattr(cli, "_load", lambda model: FakeLVLM())
        search = ("tune", "bias", "--split", "tune-heldout", "--limit", "3", "--grid", "bias=-2,3", "--out", tmp_path)
        result = run(*search)
        assert result.exit_code == 0, result.output
        assert "best accuracy" in result.stdout
        assert f"--methods greedy,bias --split test-heldout --settings {tmp_path / 'tune.json'}" in result.stdout
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

    @pytest.mark.usefixtures("with_none")
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
    def test_bad_options(self, tmp_path, options, words):
        folder = tmp_path / "search"
        assert words in refused("tune", *([*options] if "--out" in options else [*options, "--out", folder]))
        assert not folder.exists()
