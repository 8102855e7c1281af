"""The examples of the README and of every public docstring run on the pocket model."""

import contextlib
import doctest
import inspect
import io
import json
import re
from importlib import resources

import pytest
import torch

import iava
from iava.pocket.scenes import load_scene
from tests.docs.pages import ROOT
from tools.reference import SETUP

TRUTHS = ["yes", "yes", "no"]


def readme(section: str) -> str:
    """The Python code of a marked section of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.split(f"[start:{section}]")[1].split(f"[end:{section}]")[0]
    return re.search(r"```python\n(.*?)```", part, flags=re.DOTALL).group(1)


def printed(code: str) -> list[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    return out.getvalue().splitlines()


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_scene("test", 1).render().save("photo.jpg")


def test_the_lines_on_a_7b_model_answer_on_the_pocket_model(photo) -> None:
    weights = str(resources.files("iava.pocket") / "weights")
    code = readme("generate").replace('"llava-hf/llava-1.5-7b-hf"', repr(weights))
    assert len([line for line in code.splitlines() if line and not line.startswith((" ", ")"))]) == 10
    asked = iava.load("pocket").ask("photo.jpg", "Is there a dog in the image?")
    assert [line.strip() for line in printed(code)] == [asked.text] == ["Yes."]


def test_the_lines_with_load_answer_and_show_the_selection(photo) -> None:
    text, *selected = printed(readme("load"))
    assert text in ("Yes.", "No.")
    assert "".join(selected).count("True") + "".join(selected).count("False") == 144


@pytest.fixture(scope="module")
def names() -> dict:
    """What the examples may use: the lines at the top of the reference page."""
    found: dict = {}
    exec(SETUP, found)
    return found


def wrong_lines(docstring: str | None, names: dict) -> str:
    """Runs the examples of a docstring; what is wrong with them, or an empty text."""
    examples = doctest.DocTestParser().get_doctest(docstring or "", dict(names), "example", None, 0)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    return out.getvalue()


@pytest.mark.parametrize("name", iava.__all__)
def test_every_public_name_has_an_example_that_runs(name, names) -> None:
    value = getattr(iava, name)
    assert ">>> " in inspect.getdoc(value), f"{name} has no example"
    members = [getattr(value, member) for member in vars(value) if not member.startswith("_")]
    assert "".join(wrong_lines(inspect.getdoc(one), names) for one in (value, *members)) == ""


def test_a_wrong_example_is_found() -> None:
    assert "Expected:\n    3\nGot:\n    2" in wrong_lines(">>> 1 + 1\n3", {})


def test_the_method_of_the_guide_is_pai_without_raised_attention(tmp_path, monkeypatch, names) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (tmp_path / "guide.py").write_text(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1))
    monkeypatch.syspath_prepend(tmp_path)
    lvlm, question = names["lvlm"], "Is there a bread in the image?"
    ours = lvlm.ask(names["image"], question, method="guide:TextContrast", alpha=0.5)
    same = lvlm.ask(names["image"], question, method="pai", alpha=0, gamma=1.5)
    assert ours.settings == {"alpha": 0.5, "beta": 0.1}
    torch.testing.assert_close(ours.logits, same.logits)
    assert ours.tokens == same.tokens


def test_the_benchmark_of_the_guide_reads_questions_and_scores_answers(tmp_path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("[start:add-a-benchmark]")[1]
    made: dict = {}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL).group(1), made)
    rows = [
        {"id": str(n), "image": "a.png", "question": f"Is it {n}?", "answer": truth} for n, truth in enumerate(TRUTHS)
    ]
    answered = [{**row, "prediction": said} for row, said in zip(rows, ("Yes.", "No.", "Perhaps."), strict=True)]
    for name, lines in {"colours.json": rows, "answers.jsonl": answered}.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "images").mkdir()
    load_scene("test", 0).render().save(tmp_path / "images" / "a.png")
    benchmark = made["Colours"]("colours")
    assert [question.truth for question in benchmark.load(tmp_path).questions] == TRUTHS
    found = benchmark.predictions(tmp_path / "answers.jsonl", {})
    parsed = [
        benchmark.read(found.task, question, said, None)
        for question, said in zip(found.task.questions, found.texts, strict=True)
    ]
    assert parsed == ["yes", "no", None]
    records = [
        {"category": "colour", "truth": truth, "parsed": said} for truth, said in zip(TRUTHS, parsed, strict=True)
    ]
    score = benchmark.score(records)
    assert (score["n"], score["accuracy"], score["unparsed"]) == (3, 1 / 3, 1 / 3)
