"""Damaged run folders: every mutation is read, or refused in one line."""

import json
import random
import shutil

import pytest

from iava.errors import IavaError
from iava.evaluation.merge import merge
from iava.evaluation.plan import Plan
from iava.evaluation.rescore import rescore
from iava.evaluation.runner import evaluate
from iava.evaluation.runs import read_runs
from iava.reporting.report import write_report
from tests.fakes import FakeLVLM
from tests.folders import written

FILES = ("records.jsonl", "manifest.json", "results.json", "tune-records.jsonl")
VALUES = (None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x", "\ud800", [], ["a"], {}, {"a": 1})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A whole run of three benchmarks and a shard, with the plan that made each."""
    folder = tmp_path_factory.mktemp("runs")
    data = written(folder / "data")
    plans = {
        "pope": Plan("fake", {"greedy": {}, "bias": {}, "iava": {}}, split="tune-heldout", limit=2, tune_images=1),
        "chair": Plan("fake", {"greedy": {}, "iava": {}}, split="tune-heldout", limit=3, benchmark="chair"),
        "amber": Plan("fake", {"greedy": {}, "iava": {}}, benchmark="amber", data=data),
        "shard": Plan("fake", {"greedy": {}}, split="tune-heldout", limit=2, shard=(1, 2)),
    }
    for name, plan in plans.items():
        evaluate(FakeLVLM(), plan, folder / name)
    return folder, plans


def broken_bytes(luck, data):
    place, kind = luck.randrange(len(data) + 1), luck.randrange(5)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([luck.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + data[luck.randrange(place, len(data) + 1) :]
    if kind == 3:
        return data[:place] + data[max(0, place - 40) :]
    return b"" if luck.random() < 0.2 else data.replace(*luck.choice([(b":", b""), (b'"', b"'"), (b"\n", b" ")]), 1)


def broken_value(luck, value):
    """The same with one value, key or entry changed, somewhere in it."""
    if isinstance(value, dict) and value and luck.random() < 0.9:
        key = luck.choice(list(value))
        if luck.random() < 0.2:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: broken_value(luck, value[key])}
    if isinstance(value, list) and value and luck.random() < 0.7:
        place = luck.randrange(len(value))
        return [*value[:place], broken_value(luck, value[place]), *value[place + 1 :]]
    return luck.choice(VALUES)


def damage(luck, folder):
    path = folder / luck.choice([name for name in FILES if (folder / name).exists()])
    if luck.random() < 0.5:
        path.write_bytes(broken_bytes(luck, path.read_bytes()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(broken_value(luck, json.loads(path.read_text()))))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        number = luck.randrange(len(rows))
        rows[number] = broken_value(luck, rows[number])
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def outcome(act, *given):
    try:
        act(*given)
    except IavaError:
        return "refused"
    return "done"


@pytest.mark.parametrize("count", [20, pytest.param(3000, marks=pytest.mark.slow)])
def test_damage_is_read_or_refused_in_one_line(runs, tmp_path, count):
    folder, plans = runs
    outcomes = set()
    for seed in range(count):
        luck = random.Random(seed)
        name = luck.choice(list(plans))
        place = tmp_path / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / name, place)
        file = damage(luck, place)
        actions = {
            "report": (lambda run: write_report(tmp_path / "report.html", read_runs([run])), place),
            "merge": (lambda run: merge([run], tmp_path / "merged"), place),
            "rescore": (rescore, place, "pope"),
            "resume": (evaluate, FakeLVLM(), plans[name], place),
        }
        for action, call in actions.items():
            try:
                outcomes.add((action, outcome(*call)))
            except Exception as error:
                raise AssertionError(f"seed {seed}: {action} with damaged {file} of {name}") from error
            shutil.rmtree(tmp_path / "merged", ignore_errors=True)
    assert outcomes >= {("report", "done"), ("report", "refused"), ("resume", "done"), ("resume", "refused")}
