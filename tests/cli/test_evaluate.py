"""`iava eval`: tables, resuming, data sets on disk, and bad input, which is refused before a model is loaded."""

import json
from dataclasses import replace

import pytest

from tests.commands import refused, run
from tests.fakes import FakeLVLM
from tests.folders import written

NO_MODEL = ("--model", "no/such/model")
"""Loading it fails: bad input that is reported with it was found first."""


@pytest.fixture
def fake(monkeypatch):
    """Every model answers at random, always the same, and counts its questions."""
    model = FakeLVLM()
    monkeypatch.setattr("iava.lvlm.loading.load", lambda name: model)
    return model


def test_prints_the_table_and_resumes(tiny_folder, tmp_path):
    arguments = ("eval", "pope", "--model", tiny_folder, "--data", "pocket", "--split", "tune-heldout", "--limit", "2")
    arguments += ("--tune-images", "1", "--max-new-tokens", "1", "--out", tmp_path)
    result = run(*arguments, "--alpha", "0.5")
    assert result.exit_code == 0, result.output
    assert "constant bias" in result.stdout
    assert "the best control (" in result.stdout
    assert "the best control (" in (tmp_path / "report.html").read_text()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["settings"]["alpha"] for row in rows if row["method"] == "iava"} == {0.5}
    # Answers are timed: records that were made again would differ.
    records = [(tmp_path / name).read_bytes() for name in ("records.jsonl", "tune-records.jsonl")]
    assert run(*arguments, "--alpha", "0.5").exit_code == 0
    assert [(tmp_path / name).read_bytes() for name in ("records.jsonl", "tune-records.jsonl")] == records
    assert "methods.iava.alpha is 0.5 there, 1.0 here" in refused(*arguments)


def test_every_benchmark_in_a_folder(fake, tmp_path):
    data = written(tmp_path / "data")
    for name, category, metric, errors in (
        ("pope-gqa", "random", "accuracy", 2),
        ("mme", "count", "score", 2),
        ("textvqa", "overall", "accuracy", 1),
        ("chair", "overall", "chair_s", 1),
        ("amber", "overall", "score", 2),
    ):
        out = tmp_path / name
        arguments = ("eval", name, "--model", "fake", "--data", data, "--out", out)
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert "the best control (" in result.stdout
        written_results = json.loads((out / "results.json").read_text())
        (row,) = [r for r in written_results["rows"] if (r["category"], r["method"]) == (category, "iava")]
        assert (row["benchmark"], row["main"], row["errors"]) == (name, metric, errors)
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        assert len({(r["id"], r["method"]) for r in records}) == len(records)
        # The broken picture is an error of its own questions, by every method.
        assert {r["image"] for r in records if "error" in r} == {r["image"] for r in records if "bad" in r["image"]}
        assert any("bad" in r["image"] for r in records)
        assert "got no answer and are left out" in result.stderr
        assert written_results["manifest"]["data"] == str(data)
        fake.asked.clear()
        assert run(*arguments).exit_code == 0
        assert fake.asked == []
        assert "unknown split 'train'" in refused(*arguments, "--split", "train")


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "words"),
    [
        ("pope-gqa", "gqa_pope_random.json", '"label": "no"}', '"label": "no', "line 2: this is no JSON"),
        (
            "pope-gqa",
            "gqa_pope_random.json",
            '"question_id": 1,',
            '"question_id": 0,',
            "line 2: question_id random-0 was",
        ),
        ("pope-gqa", "gqa_pope_random.json", '"no"', '"none"', "line 2: 'label' is 'none': it must be yes or no"),
        ("pope-gqa", "gqa_pope_random.json", "green.jpg", "blue.jpg", "line 3: the image blue.jpg is missing from"),
        ("mme", "count/red.txt", "Are there two dogs?\tNo\n", "", "line 1: image count/red.jpg has one question"),
        ("textvqa", "TextVQA_0.5.1_val.json", "]}]}", "]}", "line 1, column"),
    ],
)
def test_broken_data_is_located_and_nothing_is_written(tmp_path, name, file, old, new, words):
    path = written(tmp_path / "data") / name / file
    path.write_text(path.read_text().replace(old, new, 1))
    said = refused("eval", name, *NO_MODEL, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert f"{path}, {words}" in said
    assert not (tmp_path / "out").exists()


class Silent(FakeLVLM):
    def ask_many(self, *given, **more):
        return [replace(answer, text="") for answer in super().ask_many(*given, **more)]


def test_empty_answers_are_wrong_and_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("iava.lvlm.loading.load", lambda name: Silent())
    arguments = ("--model", "fake", "--data", written(tmp_path / "data"), "--out", tmp_path / "out")
    result = run("eval", "pope-gqa", *arguments, "--methods", "greedy,bias,iava")
    assert result.exit_code == 0, result.output
    assert "iava: IAVA: 4 of 6 answers are empty; random-0: ''" in result.stderr
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["metrics"]["accuracy"] for row in rows} == {0.0}
    assert {row["metrics"]["unparsed"] for row in rows} == {1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "val"], "unknown split 'val'"),
        (["--shard", "2"], "shard is '2': it must be a part and the number of parts, such as 1/4"),
        (["--shard", "3/2"], "shard is 3/2: it must be from 1/2 to 2/2"),
        (["--limit", "1", "--shard", "2/2"], "shard 2/2 is empty: there are 1 images"),
        (["--data", "nowhere"], "there is no pope in nowhere: put into nowhere/pope: the data set lmms-lab/POPE"),
        (["--limit", "0"], "limit is 0"),
        (["--methods", "greedy,"], "methods is 'greedy,'"),
        (["--methods", ""], "methods is ''"),
        (["--methods", "greedy,magic"], "unknown method 'magic'"),
        (["--methods", "bias"], "bias is fitted to the yes-rate of another method"),
        (["--methods", "greedy", "--alpha", "1"], "--alpha was given, but greedy has no such setting"),
        (["--alpha", "-1"], "alpha is -1.0"),
        (["--parser", "vague"], "unknown parser 'vague'"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--out", "/proc/run"], "cannot write to /proc/run"),
    ],
)
def test_bad_options(tmp_path, options, words):
    folder = tmp_path / "run"
    arguments = ("eval", "pope", *NO_MODEL, "--data", "pocket", "--split", "tune", "--out", folder)
    assert words in refused(*arguments, *options)
    assert not folder.exists()


def test_unknown_benchmarks_and_missing_data(tmp_path):
    def said(*arguments):
        return refused("eval", *arguments, *NO_MODEL, "--out", tmp_path)

    assert "unknown benchmark 'vqa': use one of pope" in said("vqa")
    assert "textvqa has no pocket version" in said("textvqa", "--data", "pocket")
    assert "bias moves yes against no" in said("chair", "--data", "pocket", "--methods", "greedy,bias")
    assert "--data is missing: name the folder that holds pope" in said("pope")
