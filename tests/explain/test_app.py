"""The app shows the explorer's page in a frame and saves it. Needs gradio."""

import html

import pytest

from iava.errors import IavaError
from iava.lvlm.model import LVLM
from tests import tiny

gradio = pytest.importorskip("gradio")

SETTINGS = {"top_i": 0.5, "lam": None, "alpha": 1.0, "beta": 0.1, "negative": "zeros", "general": "See this picture ."}


@pytest.fixture(scope="module")
def ask():
    from iava.explain.app import page_in_frame

    lvlm = LVLM(tiny.model(), tiny.processor())
    return lambda image, questions, methods, folder: page_in_frame(
        lvlm, "tiny", image, questions, methods, SETTINGS, 2, folder
    )


def test_the_page_is_shown_and_saved(ask, tmp_path):
    frame, path = ask(tiny.image(), "What ?\n\n Where ?\n", ["greedy", "iava"], tmp_path)
    with open(path, encoding="utf-8") as file:
        page = file.read()
    assert html.escape(page) in frame
    assert "See this picture ." in page
    assert "Where ?" in page


def test_missing_inputs_are_refused(ask, tmp_path):
    for image, questions, methods, words in [
        (None, "What ?", ["greedy"], "there is no image"),
        (tiny.image(), " \n ", ["greedy"], "there is no question"),
        (tiny.image(), "What ?", [], "no method is selected"),
    ]:
        with pytest.raises(IavaError, match=words):
            ask(image, questions, methods, tmp_path)


def test_lambda_is_parsed():
    from iava.explain.app import parse_lam

    assert [parse_lam(text) for text in ("", " ", "-0.1", " auto ", "much")] == [None, None, -0.1, "auto", "much"]


def test_the_app_is_built():
    from iava.explain.app import build_app

    app = build_app(LVLM(tiny.model(), tiny.processor()), "tiny")
    assert isinstance(app, gradio.Blocks)
