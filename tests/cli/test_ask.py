"""`iava ask`: answers, JSON, tables, and bad input, which is refused before a model is loaded."""

import json
import re

import pytest
from PIL import Image

import iava
from tests import tiny
from tests.commands import refused, run

QUESTION = "Is there a dog in the image ?"
NO_MODEL = ("--model", "no/such/model")
"""Loading it fails: bad input that is reported with it was found first."""


def test_prints_only_the_answer(picture, tiny_folder):
    result = run("ask", picture, QUESTION, "--model", tiny_folder, "--top-i", "3", "--max-new-tokens", "4")
    expected = iava.load(tiny.model(), tiny.processor()).ask(picture, QUESTION, top_i=3, max_new_tokens=4)
    assert (result.exit_code, result.stdout, result.stderr) == (0, expected.text + "\n", "")
    assert expected.text


def test_json_is_the_only_output(picture, tiny_folder):
    model = ("--model", tiny_folder)
    one = json.loads(run("ask", picture, QUESTION, *model, "--json", "--top-i", "0.5", "--lam", "-0.1").stdout)
    assert (one["method"], one["question"], one["model"]) == ("iava", QUESTION, tiny_folder)
    assert (one["settings"]["top_i"], one["settings"]["lam"]) == (0.5, -0.1)
    four = json.loads(run("ask", picture, QUESTION, "Where ?", *model, "--compare", "greedy,iava", "--json").stdout)
    asked = [(QUESTION, "greedy"), (QUESTION, "iava"), ("Where ?", "greedy"), ("Where ?", "iava")]
    assert [(one["question"], one["method"]) for one in four] == asked


def test_compare_prints_a_table_and_explain_writes_a_page(picture, tmp_path, tiny_folder):
    page = tmp_path / "why.html"
    options = ("--model", tiny_folder, "--compare", "greedy,iava", "--explain", page, "--layers", "0,-1")
    result = run("ask", picture, QUESTION, *options)
    assert result.exit_code == 0
    assert re.search(r"question +greedy +iava", result.stdout)
    assert "iava explorer" in page.read_text()
    assert result.stderr == f"explanation: {page}\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top-i", "0"], "top_i"),
        (["--top-i", "0.0"], "top_i"),
        (["--top-i", "1.5"], "top_i"),
        (["--top-i", "nan"], "top_i"),
        (["--top-i", "many"], "top_i is 'many': it must be a count such as 40, a share such as 0.2, or \"auto\""),
        (["--alpha", "-1"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--beta", "1.5"], "beta"),
        (["--beta", "nan"], "beta"),
        (["--lam", "nan"], "lam"),
        (["--lam", "inf"], "lam"),
        (["--lam", "1e308"], "lam is 1e+308: it must be a number, finite in float32"),
        (["--top-i", "9" * 400], "it must be a number, finite in float32"),
        (["--seed", "-1"], "'--seed'"),
        (["--seed", "9" * 20], "'--seed'"),
        (["--layers", "x"], "layers is 'x'"),
        (["--general", " "], "general"),
        (["--negative", "mist"], "negative is 'mist'"),
        (["--method", "magic"], "unknown method 'magic': use one of greedy"),
        (["--method", "greedy", "--alpha", "1"], "--alpha was given, but greedy has no such setting"),
        (["--compare", "greedy,,iava"], "compare is 'greedy,,iava'"),
        (["--compare", "greedy,greedy"], "list of different methods"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--explain", "/nowhere/at/all.html"], "there is no folder /nowhere/at"),
        (["--explain", "/"], "cannot write /"),
    ],
)
def test_bad_options(picture, options, words):
    assert words in refused("ask", picture, QUESTION, *NO_MODEL, *options)


def test_unreadable_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    tiny.image(size=(200, 200)).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    Image.new("1", (40_000, 8)).save(tmp_path / "wide.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("missing.png", "empty.png", "text.png", "broken.png", "wide.png", "loop.png", "x" * 300 + ".png"):
        assert name in refused("ask", tmp_path / name, QUESTION, *NO_MODEL)


def test_blank_questions(picture):
    assert "the question is ''" in refused("ask", picture, QUESTION, "", *NO_MODEL)


def test_unknown_models(picture, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert "unknown model" in refused("ask", picture, QUESTION, "--model", tmp_path / "nothing")
    assert "unknown model" in refused("ask", picture, QUESTION, "--model", "x" * 5000)
    assert sorted(tmp_path.iterdir()) == before
