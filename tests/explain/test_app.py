"""The app's answer is the explorer's page, in a frame and as a file; needs gradio."""

import html

import pytest

from iava.lvlm.model import LVLM
from tests import tiny

gradio = pytest.importorskip("gradio")

GIVEN = {"top_i": 0.5, "lam": None, "alpha": 1.0, "beta": 0.1, "negative": "zeros", "general": "See this picture ."}


@pytest.fixture(scope="module")
def ask():
    from iava.explain.app import _explored

    lvlm = LVLM(tiny.model(), tiny.processor())
    return lambda picture, questions, methods, folder: _explored(
        lvlm, "tiny", picture, questions, methods, GIVEN, 2, folder
    )


def test_the_page_is_shown_and_kept(ask, tmp_path):
    frame, path = ask(tiny.image(), "What ?\n\n Where ?\n", ["greedy", "iava"], tmp_path)
    with open(path, encoding="utf-8") as file:
        page = file.read()
    assert html.escape(page) in frame
    assert "See this picture ." in page
    assert "Where ?" in page


def test_what_is_missing_is_said(ask, tmp_path):
    for picture, questions, methods, words in [
        (None, "What ?", ["greedy"], "no picture"),
        (tiny.image(), " \n ", ["greedy"], "no question"),
        (tiny.image(), "What ?", [], "no method"),
    ]:
        with pytest.raises(ValueError, match=words):
            ask(picture, questions, methods, tmp_path)


def test_what_is_typed_for_lambda():
    from iava.explain.app import read_lam

    assert [read_lam(text) for text in ("", " ", "-0.1", " auto ", "much")] == [None, None, -0.1, "auto", "much"]


def test_it_is_built():
    from iava.explain.app import build

    app = build(LVLM(tiny.model(), tiny.processor()), "tiny")
    assert isinstance(app, gradio.Blocks)
