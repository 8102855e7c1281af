"""Folders of runs: parts become the whole again, and what cannot be read is said in one line."""

import json

import pytest

from iava.benchmarks.registry import benchmark
from iava.evaluation.runs import read_runs
from iava.metrics.results import rows_of
from tests.made import METHODS, records, write_run


def parts(tmp_path, some):
    """The records of every other image in a folder of their own."""
    images = sorted({record["image"] for record in some})
    return [
        write_run(tmp_path / f"part{n}", [r for r in some if images.index(r["image"]) % 2 == n], shard=f"{n + 1}/2")
        for n in range(2)
    ]


def test_parts_of_a_run_are_the_whole_run(tmp_path):
    some = records(images=6)
    whole = write_run(tmp_path / "whole", some)
    merged, alone = (read_runs(folders)[0] for folders in (parts(tmp_path, some), [whole]))
    assert merged.rows == alone.rows == rows_of(some, benchmark=benchmark("pope"), settings=METHODS, seed=3)
    assert len(merged.records) == len(some)
    assert merged.of("iava", "random") == alone.of("iava", "random")
    assert len(merged.manifests) == 2


def test_other_settings_are_another_run(tmp_path):
    folders = [write_run(tmp_path / str(seed), records(images=2), seed=seed) for seed in (1, 2)]
    assert [run.settings["seed"] for run in read_runs(folders)] == [1, 2]


def test_a_stopped_run_is_read_as_far_as_it_got(tmp_path):
    some = records(images=3)
    folder = write_run(tmp_path / "run", some, results=False)
    path = folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    before = path.read_bytes()
    [run] = read_runs([folder])
    assert len(run.records) == len(some) - 1
    assert {row["method"] for row in run.rows} == set(METHODS)
    assert path.read_bytes() == before


def test_errors_are_no_answers(tmp_path):
    some = records(images=3)
    some[0] |= {"error": "truncated", "parsed": None, "yes": None, "no": None}
    [run] = read_runs([write_run(tmp_path / "run", some)])
    assert len(run.of("greedy")) == 35
    assert len(run.of("apc")) == 36


def message(*folders):
    with pytest.raises(ValueError, match=r".") as caught:
        read_runs(list(folders))
    return str(caught.value)


def test_what_is_no_run_is_refused(tmp_path):
    assert "holds no run" in message(tmp_path)
    folder = write_run(tmp_path / "run", records(images=1))
    assert "named twice" in message(folder, tmp_path / "run" / ".." / "run")
    other = write_run(tmp_path / "again", records(images=1))
    assert "both hold greedy's answer to test-00000-random-0: name one of them" in message(folder, other)
    (folder / "records.jsonl").write_text("")
    assert "holds no answers yet" in message(folder)
    (folder / "records.jsonl").write_text('{"id": "1"}\n')
    assert "line 1, is no record" in message(folder)
    (folder / "records.jsonl").write_text("nonsense\n{}\n")
    assert "records.jsonl, line 1, is no JSON" in message(folder)
    for manifest in ("[]", json.dumps({"settings": {"model": "x"}})):
        (folder / "manifest.json").write_text(manifest)
        assert "is no manifest of a run" in message(folder)
