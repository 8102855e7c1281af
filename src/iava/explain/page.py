"""One self-contained page about one picture: the answers, the attention behind them, the candidates at every step."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from PIL import Image

from iava.lvlm.answers import Answer
from iava.lvlm.model import LVLM
from iava.reporting.differences import differing
from iava.reporting.overlay import data_uri, reading, shrunk
from iava.reporting.templating import settings_text, template_environment

Asked = Sequence[tuple[str, Sequence[Answer]]]
"""Each question with its answers, one a method."""


def compare(
    lvlm: LVLM,
    picture: Image.Image,
    questions: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    max_new_tokens: int,
    seed: int,
) -> Asked:
    """Asks each question by each method, explained.

    Args:
        methods: settings by a method's command-line name.

    Raises:
        IavaError: as `LVLM.ask_many`.
    """
    answers = [
        lvlm.ask_many(
            picture, questions, method=name, max_new_tokens=max_new_tokens, explain=True, seed=seed, **settings
        )
        for name, settings in methods.items()
    ]
    return list(zip(questions, zip(*answers, strict=True), strict=True))


def circumstances(lvlm: LVLM, *, max_new_tokens: int, seed: int) -> dict[str, str]:
    """What a page says of how its answers came about."""
    weight = next(lvlm.model.parameters())
    return {
        "Device": f"{weight.device}, {str(weight.dtype).removeprefix('torch.')}",
        "Longest answer": f"{max_new_tokens} tokens",
        "Seed": f"{seed}, for methods that draw tokens",
    }


def explain_page(
    picture: Image.Image,
    asked: Asked,
    *,
    model: str,
    about: Mapping[str, str] | None = None,
) -> str:
    """The explorer as HTML that needs no network.

    Args:
        picture: the image that was asked about, as `read_image` returns it.
        asked: each question with its answers, one a method, asked with explain=True.
        model: the model's name.
        about: what else is to be said of how it was made, by name.
    """
    small = shrunk(picture)
    methods = asked[0][1]
    return (
        template_environment("iava.explain")
        .get_template("page.html.j2")
        .render(
            picture=data_uri(small),
            width=small.width,
            height=small.height,
            data={"questions": [_question(question, answers, picture.size) for question, answers in asked]},
            compared=None if len(methods) < 2 else "the other" if len(methods) == 2 else "the first",
            made=_made(picture, methods, model, about or {}),
            model=model,
            version=version("iava"),
        )
    )


def _made(
    picture: Image.Image, answers: Sequence[Answer], model: str, about: Mapping[str, str]
) -> list[tuple[str, list[str]]]:
    versions = {name: version(name) for name in ("iava", "torch", "transformers")}
    return [
        ("Model", [model]),
        ("Picture", [f"{picture.width} × {picture.height} pixels"]),
        *((name, [text]) for name, text in about.items()),
        ("Methods", [_settings(answer) for answer in answers]),
        ("Seconds", ["wall-clock, from the picture to the text; questions asked together share their time equally"]),
        ("Versions", [", ".join(f"{name} {number}" for name, number in versions.items())]),
        ("Python", [platform.python_version()]),
    ]


def _settings(answer: Answer) -> str:
    settings = settings_text(answer.settings)
    return f"{answer.method}: {settings}" if settings else answer.method


def _question(question: str, answers: Sequence[Answer], size: tuple[int, int]) -> dict[str, Any]:
    # The first answer is what the others are compared with; of two, each is compared with the other.
    others = [answers[1] if len(answers) == 2 else answers[0], *[answers[0]] * (len(answers) - 1)]
    return {
        "question": question,
        "answers": [_answer(answer, other) for answer, other in zip(answers, others, strict=True)],
        "reading": next((read for answer in answers if (read := reading(answer, size))), None),
    }


def _answer(answer: Answer, other: Answer) -> dict[str, Any]:
    steps = answer.explanation.steps if answer.explanation else []
    # The last step may have taken the end-of-sequence token, which an answer does not list.
    chosen = [*answer.tokens, None][: len(steps)]
    return {
        "method": answer.method,
        "seconds": answer.seconds,
        "words": differing(other.text, answer.text)[1],
        "steps": [_step(step, token) for step, token in zip(steps, chosen, strict=True)],
    }


def _step(step: dict[str, list[dict[str, Any]]], chosen: int | None) -> dict[str, Any]:
    """The candidates with which of them was taken; a drawn one may be none of them."""
    taken = next((one for one in step["combined"] if one["id"] == chosen), None)
    return {
        **step,
        "chosen": chosen,
        "token": "(end)" if chosen is None else taken["text"] if taken else "?",
        "probability": taken["probability"] if taken else None,
    }
