"""The demo on a tiny random model: it asks, measures, writes the page, and says what the table says."""

import json
from pathlib import Path

import pytest

from iava.cli import demo
from iava.lvlm.model import LVLM
from iava.reporting.verdicts import verdicts
from tests import tiny


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def test_it_ends_with_the_page_and_the_sentence_and_refuses_another_run(lvlm, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "runs" / "demo"
    demo.run(lvlm, folder, 4, model="tiny")
    printed = capsys.readouterr().out
    page = (folder / "report.html").read_text()
    sentence = verdicts(json.loads((folder / "results.json").read_text())["rows"])[0]
    assert " ".join(printed.split()[-len(sentence.split()) :]) == sentence
    assert sentence.replace("'", "&#39;") in page
    assert str(Path(folder) / "report.html") in printed
    assert "test-00000" in printed
    assert {row["method"] for row in json.loads((folder / "results.json").read_text())["rows"]} == set(demo.METHODS)
    monkeypatch.setattr(lvlm, "ask_many", lambda *_, **__: pytest.fail("asked before the folder was looked at"))
    with pytest.raises(ValueError, match=r"limit is 4 there, 5 here\): delete it, or choose another folder \(--out\)$"):
        demo.run(lvlm, folder, 5, model="tiny")


def test_pictures_where_answers_differ_are_found_in_order():
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
    assert demo._where_they_differ(records, ["a", "b", "c"]) == ["a", "b"]
    assert demo._where_they_differ(records, ["c"]) == []
