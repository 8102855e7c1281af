"""`iava demo` on the shipped model: it asks, measures and writes a report."""

import json

import pytest

from iava.cli.commands.demo import METHODS, differing_images
from iava.reporting.verdicts import verdicts
from tests.commands import refused, run


@pytest.mark.slow
def test_prints_and_writes_the_verdict_and_refuses_another_run(tmp_path):
    folder = tmp_path / "runs" / "demo"
    result = run("demo", "--limit", 2, "--out", folder)
    assert result.exit_code == 0, result.output
    results = json.loads((folder / "results.json").read_text())
    sentence = verdicts(results["rows"])[0]
    assert sentence in " ".join(result.stdout.split())
    assert sentence.replace("'", "&#39;") in (folder / "report.html").read_text()
    assert result.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert "test-00000" in result.stdout
    assert {row["method"] for row in results["rows"]} == set(METHODS)
    said = refused("demo", "--limit", 3, "--out", folder)
    assert "limit is 2 there, 3 here): delete it, or choose another folder (--out)" in said


def test_bad_options(tmp_path):
    assert "limit is 0" in refused("demo", "--limit", "0", "--out", tmp_path)
    (tmp_path / "file").touch()
    assert "cannot write to" in refused("demo", "--out", tmp_path / "file" / "demo")


def test_images_with_different_answers_are_found_in_order():
    def record(image, question, method, parsed):
        return {"image": image, "question": question, "method": method, "parsed": parsed}

    records = [
        record("b", "1", "greedy", "yes"),
        record("b", "1", "iava", "no"),
        record("a", "1", "greedy", "yes"),
        record("a", "1", "iava", "yes"),
        record("a", "2", "greedy", None),
        record("a", "2", "iava", "no"),
        record("c", "1", "greedy", "no"),
        record("c", "1", "iava", "no"),
    ]
    assert differing_images(records, ["a", "b", "c"]) == ["a", "b"]
    assert differing_images(records, ["c"]) == []
