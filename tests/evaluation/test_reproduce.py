"""The paper's comparison, end to end on the data sets' own layouts, stopped on the way and called again."""

import json
import re

import pytest

from iava.cli.commands.reproduce import duration
from iava.evaluation import reproduce
from iava.evaluation.reproduce import TABLES, estimate, plans
from tests.commands import refused, run
from tests.evaluation.test_runner import by_key, lines
from tests.fakes import FakeLVLM
from tests.folders import written

METHODS = {
    "sampling": ["sample", "apc", "vcd", "m3id", "avisc", "iava"],
    "greedy": ["greedy", "bias", "vcd", "m3id", "avisc", "iava"],
}
PLACES = [(mode, name) for mode in METHODS for name in TABLES]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    assert run("data", "write-pocket", "--out", folder, "--limit", "3").exit_code == 0
    return folder


@pytest.fixture
def fake(monkeypatch):
    made = []

    def answering(stop_after=None):
        made.append(FakeLVLM(stop_after))
        monkeypatch.setattr("iava.lvlm.loading.load", lambda name: made[-1])
        return made[-1]

    return answering


@pytest.mark.slow
def test_all_tables_in_one_command_that_goes_on_where_it_was(data, tmp_path, fake):
    fake()
    whole = run("reproduce", "--model", "fake", "--data", data, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert "report: " in whole.stdout
    assert "VCD and AvisC do, whose code always draws at temperature 1" in " ".join(whole.stdout.split())
    for mode, name in PLACES:
        manifest = json.loads((tmp_path / "whole" / mode / name / "manifest.json").read_text())["settings"]
        assert list(manifest["methods"]) == [one for one in METHODS[mode] if (name, one) != ("textvqa", "bias")]
        drawing = {method for method, own in manifest["methods"].items() if own.get("sampling")}
        assert drawing == (set(METHODS[mode]) if mode == "sampling" else set())
        assert (manifest["seed"], manifest["limit"]) == (42, None)
        assert manifest["methods"]["iava"]["negative"] == "zeros"
        assert manifest["methods"]["m3id"]["offset"] == (10 if name == "pope" else 0)
        asked = {record["question"] for record in lines(tmp_path / "whole" / mode / name)}
        assert all(question.endswith("phrase.") for question in asked) == (name == "textvqa")
    stops, again = 0, tmp_path / "again"
    while True:
        fake(stop_after=250)
        result = run("reproduce", "--model", "fake", "--data", data, "--out", again)
        if result.exit_code == 0:
            break
        stops += 1
    assert stops > 1
    for mode, name in PLACES:
        assert by_key(lines(again / mode / name)) == by_key(lines(tmp_path / "whole" / mode / name))
    page = (again / "report.html").read_text()
    for name in TABLES:
        # A link to each mode's section.
        assert len(re.findall(rf">{name} · \w+</a>", page)) == 1
        assert len(re.findall(rf">{name} · \w+ · sampling</a>", page)) == 1


def test_each_method_is_compared_within_its_mode(data, tmp_path, fake):
    fake()
    arguments = ("--data", data, "--tables", "pope", "--out", tmp_path)
    assert run("reproduce", "--model", "fake", *arguments).exit_code == 0
    for mode, names in METHODS.items():
        results = json.loads((tmp_path / mode / "pope" / "results.json").read_text())
        compared = {row["comparison"]["control"] for row in results["rows"] if row["comparison"]}
        assert compared
        assert compared <= set(names[:2])


def test_the_published_settings(data, tmp_path, fake, monkeypatch):
    fake()
    monkeypatch.setattr("iava.lvlm.loading.model_type", lambda name: "llava")
    arguments = ("--data", data, "--tables", "pope", "--preset", "published", "--decoding", "sampling")
    found = run("reproduce", "--model", "fake", *arguments, "--out", tmp_path)
    assert found.exit_code == 0, found.output
    settings = json.loads((tmp_path / "sampling" / "pope" / "manifest.json").read_text())["settings"]
    assert not (tmp_path / "greedy").exists()
    # Prompt, limit and parser are those of AvisC's script for POPE.
    assert (settings["prompt_style"], settings["max_new_tokens"], settings["parser"]) == ("plain", 64, "opera")
    assert settings["system_prompt"].startswith("A chat between a curious human")
    methods = settings["methods"]
    assert (methods["vcd"]["beta"], methods["vcd"]["noise_per"], methods["m3id"]["offset"]) == (0.2, "question", 10)
    assert methods["iava"]["negative"] == "zeros"
    assert all(own["sampling"] for own in methods.values())


def test_a_dry_run_counts_and_writes_nothing(data, tmp_path, fake):
    lvlm = fake()
    out = tmp_path / "out"
    result = run("reproduce", "--model", "fake", "--data", data, "--out", out, "--tables", "pope", "--dry-run")
    assert result.exit_code == 0, result.output
    assert not out.exists()
    rows = [line.split()[:5] for line in result.stdout.splitlines() if line.split()[:1] == ["pope"]]
    assert rows == [["pope", mode, "3", "54", str(54 * len(METHODS[mode]))] for mode in METHODS]
    assert {method for method, _ in lvlm.asked} == {method for names in METHODS.values() for method in names}


def test_the_estimate_is_what_a_run_takes(data, monkeypatch):
    """On a clock that every answer moves on by a quarter of a second."""
    lvlm = FakeLVLM()
    monkeypatch.setattr(reproduce.time, "perf_counter", lambda: 0.25 * len(lvlm.asked))
    [plan] = plans("fake", data, ["pope"], modes=("greedy",), limit=None, seed=42)
    found = estimate(lvlm, plan)
    different = len({(q.image, q.question) for q in plan.task.questions})
    # The constant bias is fitted to greedy decoding and IAVA on the same three images.
    assert found.seconds == pytest.approx(0.25 * different * (len(METHODS["greedy"]) + 2))
    assert (found.questions, found.images, found.answers) == (54, 3, 54 * len(METHODS["greedy"]))
    assert found.memory >= sum(weight.numel() * 4 for weight in lvlm.model.parameters())


def test_the_estimate_is_told_in_hours_minutes_or_seconds():
    assert [duration(seconds) for seconds in (38, 119, 216, 11_100)] == ["38 s", "119 s", "4 min", "3 h 05 min"]


def test_as_many_of_popes_data_sets_as_there_are(tmp_path):
    data = written(tmp_path)
    found = plans("fake", data, ["pope", "mme"], limit=None, seed=1)
    assert [plan.benchmark for plan in found] == ["pope-gqa", "mme"] * 2


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ("mme,amber", "tables is 'mme,amber': it must be a list of mme, pope, textvqa"),
        ("pope,pope", "tables is 'pope,pope'"),
        ("", "tables is ''"),
        ("mme", "there is no mme in"),
    ],
)
def test_what_is_missing_or_unknown_is_said_before_a_model_is_loaded(tmp_path, monkeypatch, tables, words):
    monkeypatch.setattr("iava.lvlm.loading.load", lambda name: pytest.fail("loaded"))
    assert words in refused(
        "reproduce", "--model", "fake", "--data", tmp_path, "--tables", tables, "--out", tmp_path / "out"
    )


@pytest.mark.slow
def test_the_pocket_model_goes_through_it(data, tmp_path):
    arguments = ("--data", data, "--limit", "1", "--out", tmp_path)
    result = run("reproduce", "--model", "pocket", *arguments)
    assert result.exit_code == 0, result.output
    for mode, name in PLACES:
        records = lines(tmp_path / mode / name)
        assert {record["method"] for record in records} >= {METHODS[mode][0], "vcd", "m3id", "avisc", "iava"}
        assert all("error" not in record for record in records)


def test_an_unknown_mode_or_preset_is_one_line(data, tmp_path):
    options = ("--model", "fake", "--data", data, "--out", tmp_path / "out")
    assert "unknown decoding mode 'beams': use both, sampling, greedy" in refused(
        "reproduce", *options, "--decoding", "beams"
    )
    assert "unknown preset 'mine': use published" in refused("reproduce", *options, "--preset", "mine")
