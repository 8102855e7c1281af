"""One self-contained page about one image: the answers, the attention behind them, the candidates at every step."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined
from PIL import Image

from iava.explain.overlay import data_uri, layers, shrunk
from iava.explain.words import differing
from iava.lvlm import Answer


def environment() -> Environment:
    """Where the pages' templates are found, under "explain/" and "bench/"."""
    loader = PrefixLoader({"explain": PackageLoader("iava.explain"), "bench": PackageLoader("iava.bench")})
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def explain_page(picture: Image.Image, asked: Sequence[tuple[str, Sequence[Answer]]], *, model: str) -> str:
    """The page as HTML that needs no network.

    Args:
        picture: the image that was asked about, as `read_image` returns it.
        asked: each question with its answers, one a method, asked with explain=True.
        model: the model's name.
    """
    small = shrunk(picture)
    return (
        environment()
        .get_template("explain/page.html.j2")
        .render(
            picture=data_uri(small.convert("RGB")),
            width=small.width,
            height=small.height,
            questions=[_question(question, answers, picture.size, small.size) for question, answers in asked],
            model=model,
            version=version("iava"),
        )
    )


def _question(
    question: str, answers: Sequence[Answer], original: tuple[int, int], shown: tuple[int, int]
) -> dict[str, Any]:
    # The first answer is what the others are compared with; of two, each is compared with the other.
    others = [answers[1] if len(answers) == 2 else answers[0], *[answers[0]] * (len(answers) - 1)]
    read = next((a for a in answers if a.explanation and a.explanation.att_general is not None), None)
    return {
        "question": question,
        "answers": [_answer(answer, other) for answer, other in zip(answers, others, strict=True)],
        "general": read.settings.get("general") if read else None,
        "layers": layers(read.explanation, original, shown) if read else None,
    }


def _answer(answer: Answer, other: Answer) -> dict[str, Any]:
    steps = answer.explanation.steps if answer.explanation else []
    return {
        "method": answer.method,
        "settings": {key: value for key, value in answer.settings.items() if value is not None},
        "seconds": answer.seconds,
        "words": differing(other.text, answer.text)[1],
        "steps": [_step(step, chosen) for step, chosen in zip(steps, _chosen(answer, steps), strict=True)],
    }


def _chosen(answer: Answer, steps: Sequence[dict[str, Any]]) -> list[int | None]:
    """The token taken at each step; None for the end-of-sequence token, which an answer does not list."""
    return (
        [*answer.tokens, None][: len(steps)] if len(answer.tokens) < len(steps) else list(answer.tokens[: len(steps)])
    )


def _step(step: dict[str, list[dict[str, Any]]], chosen: int | None) -> dict[str, Any]:
    titles = {"full": "whole image", "negative": "masked image", "combined": "after the contrast"}
    taken = "(end)" if chosen is None else next((c["text"] for c in step["combined"] if c["id"] == chosen), "?")
    return {
        "token": taken.strip() or "␣",
        "branches": [
            {"title": title, "candidates": [c | {"taken": c["id"] == chosen} for c in step[kind]]}
            for kind, title in titles.items()
            if kind in step
        ],
    }
