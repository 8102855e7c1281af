"""Shards asked one by one and merged are the run that asked everything."""

import json
from dataclasses import replace

import pytest

from iava.benchmarks.sources.pocket import pocket
from iava.benchmarks.task import shard
from iava.evaluation.plan import Plan
from iava.evaluation.runner import evaluate
from tests.commands import refused, run
from tests.evaluation.test_runner import by_key, lines
from tests.fakes import FakeLVLM

METHODS = {"greedy": {}, "sample": {}, "bias": {}, "iava": {}}
PLAN = Plan("fake", METHODS, split="tune-heldout", limit=7, tune_images=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, evaluate(FakeLVLM(), PLAN, folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in (1, 2, 3):
        evaluate(FakeLVLM(), replace(PLAN, shard=(number, 3)), folder / str(number))
    return [folder / name for name in "123"]


def test_shards_are_every_image_once():
    task = pocket("mme", "tune", 10)
    parts = [shard(task, number, 4) for number in (1, 2, 3, 4)]
    assert [len(part.images) for part in parts] == [3, 3, 2, 2]
    assert {q.id for part in parts for q in part.questions} == {q.id for q in task.questions}
    assert sum(len(part.questions) for part in parts) == len(task.questions)
    assert parts[1].images == task.images[1::4]
    for number, count, words in ((0, 4, "shard is 0/4"), (5, 4, "shard is 5/4"), (11, 11, "there are 10 images")):
        with pytest.raises(ValueError, match=words):
            shard(task, number, count)


def test_merged_shards_are_the_whole_run(whole, shards, tmp_path):
    folder, results = whole
    out = tmp_path / "new" / "merged"
    result = run("merge", shards[2], shards[0], shards[1], "--out", out)
    assert result.exit_code == 0, result.output
    assert "constant bias" in result.stdout
    assert by_key(lines(out)) == by_key(lines(folder))
    assert len(lines(out)) == len(lines(folder))
    assert [r["id"] for r in lines(out)] == sorted(r["id"] for r in lines(folder))
    merged = json.loads((out / "results.json").read_text())
    assert merged["rows"] == json.loads((folder / "results.json").read_text())["rows"]
    assert [one["settings"]["shard"] for one in merged["manifest"]["shards"]] == ["3/3", "1/3", "2/3"]
    # It is the run itself: going on with it finds nothing to ask.
    lvlm = FakeLVLM()
    assert evaluate(lvlm, PLAN, out)["rows"] == results["rows"]
    assert lvlm.asked == []


def test_what_cannot_be_merged(whole, shards, tmp_path):
    out = tmp_path / "merged"
    assert "shard 2/3 is missing: all 3 are needed" in refused("merge", shards[0], shards[2], "--out", out)
    assert "both hold greedy's answer to" in refused("merge", *shards, whole[0], "--out", out)
    assert "holds a whole run, no shard of one" in refused("merge", whole[0], "--out", out)
    assert "holds no run" in refused("merge", *shards, tmp_path, "--out", out)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in shards[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert "both hold greedy's answer to" in refused("merge", *shards, copy, "--out", out)
    tuned = lines(copy, "tune-records.jsonl")
    for record in tuned:
        record["yes"] += 1
    (copy / "tune-records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in tuned))
    complaint = refused("merge", copy, *shards[1:], "--out", out)
    assert "do not belong together: bias was fitted otherwise" in complaint
    (copy / "results.json").unlink()
    assert "copy is not finished: call `iava eval` on it again" in refused("merge", *shards[1:], copy, "--out", out)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["settings"]["seed"] = 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "do not belong together: seed differs" in refused("merge", *shards[1:], copy, "--out", out)
    assert not out.exists()
    assert "is in use: choose a new folder" in refused("merge", *shards, "--out", copy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
