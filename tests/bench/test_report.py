"""The report shows what was asked and what results.json says, and needs nothing from outside."""

import re

import pytest

from iava.bench.report import Example, report_page
from iava.bench.runner import Plan, evaluate
from iava.lvlm import LVLM
from tests import tiny
from tests.bench.fakes import FakeLVLM
from tests.explain.test_page import Reader

QUESTION = "Is there a dog in the image ?"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    methods = {name: {} for name in ("greedy", "apc", "bias", "iava")}
    plan = Plan("fake", methods, split="tune-heldout", limit=6, tune_images=2)
    return evaluate(FakeLVLM(), plan, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def html(results):
    lvlm = LVLM(tiny.model(), tiny.processor())
    greedy, ours = (lvlm.ask(tiny.image(), QUESTION, method=name, explain=True) for name in ("greedy", "iava"))
    example = Example("scene-<1>", tiny.image(), [(QUESTION, "no", greedy, ours), ("Describe", None, greedy, ours)])
    groups = [("As they come", "nothing was picked", [example]), ("Nobody", "left out", [])]
    return report_page(results, groups, command="iava demo --out x", prompt="USER: <image>\nIs it?")


def test_it_is_self_contained(html):
    assert Reader(html).links == []
    assert not re.search(r"https?://|@import|url\((?!data:)", html)


def test_it_shows_pictures_questions_and_answers(html):
    page = Reader(html)
    assert len(page.panes) == 8
    assert [len(reading["maps"]) for reading in page.data] == [1, 1]
    for words in ("scene-<1>", QUESTION, "As they come", "nothing was picked"):
        assert words in page.text
    assert "Nobody" not in page.text
    # One question of two has a truth that its two answers can meet or miss.
    assert page.text.count("✗") + page.text.count("✓") == 2


def test_it_says_what_the_numbers_say(html, results):
    page = Reader(html)
    for row in results["rows"]:
        assert f"{100 * row['metrics']['accuracy']:.1f}" in page.text
        low, high = (f"{100 * limit:.1f}" for limit in row["intervals"]["f1"])
        assert f"[{low}, {high}]" in page.text
        if row["comparison"]:
            assert f"{100 * row['comparison']['difference']:+.1f}" in page.text
    assert "the best control (" in page.text


def test_it_says_what_made_it(html, results):
    page = Reader(html)
    machine = results["manifest"]["machine"]
    for words in (
        "iava demo --out x",
        "USER: <image>",
        "word-level",
        "tune-heldout",
        machine["processor"],
        "fitted_on",
    ):
        assert words in page.text
