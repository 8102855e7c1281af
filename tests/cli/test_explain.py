"""`iava explain` writes the page or says in one line why not; `iava app` says what it needs."""

import sys

import pytest

from iava.cli import app as cli
from iava.lvlm import model as lvlm
from tests import tiny
from tests.commands import refused, run
from tests.explain.test_page import Reader

QUESTION = "Is there a dog in the image ?"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    tiny.image().save(path)
    return path


def test_explain_writes_the_page(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "_load", lambda model: lvlm.LVLM(tiny.model(), tiny.processor()))
    page = tmp_path / "page.html"
    arguments = ("explain", picture, QUESTION, "Where ?", "-o", page, "--methods", "greedy,apc,iava")
    result = run(*arguments, "--top-i", 3, "--layers", "0,-1", "--max-new-tokens", 2)
    assert (result.exit_code, result.stdout) == (0, f"page: {page}\n")
    (data,) = Reader(page.read_text()).data
    assert [one["question"] for one in data["questions"]] == [QUESTION, "Where ?"]
    for one in data["questions"]:
        assert [answer["method"] for answer in one["answers"]] == ["greedy", "apc", "iava"]
        assert (one["reading"]["top_i"], one["reading"]["layers"]) == (3, [0, -1])


def test_bad_input_is_one_line_and_leaves_nothing(picture, tmp_path, monkeypatch):
    def load(model):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(cli, "_load", load)
    page = tmp_path / "page.html"
    assert "the question is ' '" in refused("explain", picture, " ", "-o", page)
    assert "no image at" in refused("explain", tmp_path / "none.png", QUESTION, "-o", page)
    assert "unknown method 'magic'" in refused("explain", picture, QUESTION, "-o", page, "--methods", "magic")
    assert "--top-i was given" in refused("explain", picture, QUESTION, "-o", page, "--methods", "greedy", "--top-i", 3)
    assert "top_i is" in refused("explain", picture, QUESTION, "-o", page, "--top-i", 2.5)
    assert "max_new_tokens is 0" in refused("explain", picture, QUESTION, "-o", page, "--max-new-tokens", 0)
    assert "there is no folder" in refused("explain", picture, QUESTION, "-o", tmp_path / "no" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_the_app_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'iava[app]'" in refused("app")
    assert "port is 0" in refused("app", "--port", 0)
