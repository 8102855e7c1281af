"""The explorer: a self-contained page about one image, its answers, their attention and their decoding steps."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from iava.evaluation.environment import package_version
from iava.lvlm.answers import Answer
from iava.lvlm.model import LVLM
from iava.reporting.differences import word_differences
from iava.reporting.overlay import attention_data, data_uri, scaled_down
from iava.reporting.templating import settings_text, template_environment

Answers = Sequence[tuple[str, Sequence[Answer]]]
"""Each question with its answers, one for each method."""


def answer_by_methods(
    lvlm: LVLM,
    image: Image.Image,
    questions: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    max_new_tokens: int,
    seed: int,
) -> Answers:
    """Asks every question with every method, with explanations.

    Args:
        image: an image as `read_image` returns it.
        methods: the settings of each method, by its command-line name.

    Raises:
        IavaError: see `LVLM.ask_many`.
    """
    answers = [
        lvlm.ask_many(image, questions, method=name, max_new_tokens=max_new_tokens, explain=True, seed=seed, **settings)
        for name, settings in methods.items()
    ]
    return list(zip(questions, zip(*answers, strict=True), strict=True))


def decoding_facts(lvlm: LVLM, *, max_new_tokens: int, seed: int) -> dict[str, str]:
    """The device and the decoding settings, as terms and values for `explain_page`."""
    weight = next(lvlm.model.parameters())
    return {
        "Device": f"{weight.device}, {str(weight.dtype).removeprefix('torch.')}",
        "Token limit": f"{max_new_tokens} new tokens",
        "Seed": f"{seed}, used by sampling methods",
    }


def explain_page(image: Image.Image, answers: Answers, *, model: str, facts: Mapping[str, str] | None = None) -> str:
    """The explorer as an HTML page that loads nothing from the network.

    Args:
        image: the image, as `read_image` returns it.
        answers: each question with one answer per method. All answers have explanations.
        model: the model's name.
        facts: further terms and values for the section on how the answers were made.
    """
    small = scaled_down(image)
    first_answers = answers[0][1]
    template = template_environment("iava.explain").get_template("page.html.j2")
    return template.render(
        picture=data_uri(small),
        width=small.width,
        height=small.height,
        data={"questions": [_explorer_question(question, given, image.size) for question, given in answers]},
        compared_with=None if len(first_answers) < 2 else "the other" if len(first_answers) == 2 else "the first",
        provenance=_answer_provenance(image, first_answers, model, facts or {}),
        model=model,
        version=package_version("iava"),
    )


def _answer_provenance(
    image: Image.Image, answers: Sequence[Answer], model: str, facts: Mapping[str, str]
) -> list[tuple[str, list[str]]]:
    versions = {name: package_version(name) for name in ("iava", "torch", "transformers")}
    return [
        ("Model", [model]),
        ("Image", [f"{image.width} × {image.height} pixels"]),
        *((name, [text]) for name, text in facts.items()),
        ("Methods", [_method_text(answer) for answer in answers]),
        ("Seconds", ["wall-clock time from image to text; questions asked together share their time equally"]),
        ("Versions", [", ".join(f"{name} {number}" for name, number in versions.items())]),
        ("Python", [platform.python_version()]),
    ]


def _method_text(answer: Answer) -> str:
    settings = settings_text(answer.settings)
    return f"{answer.method}: {settings}" if settings else answer.method


def _explorer_question(question: str, answers: Sequence[Answer], size: tuple[int, int]) -> dict[str, Any]:
    # Two answers are compared with each other, more than two with the first.
    references = [answers[1] if len(answers) == 2 else answers[0], *[answers[0]] * (len(answers) - 1)]
    return {
        "question": question,
        "answers": [_answer_data(answer, other) for answer, other in zip(answers, references, strict=True)],
        "attention": next((data for answer in answers if (data := attention_data(answer, size))), None),
    }


def _answer_data(answer: Answer, reference: Answer) -> dict[str, Any]:
    steps = answer.explanation.steps if answer.explanation else []
    # The last step may have chosen the end-of-sequence token, which `tokens` leaves out.
    chosen = [*answer.tokens, None][: len(steps)]
    return {
        "method": answer.method,
        "seconds": answer.seconds,
        "words": word_differences(reference.text, answer.text)[1],
        "steps": [_step_data(step, token) for step, token in zip(steps, chosen, strict=True)],
    }


def _step_data(step: dict[str, list[dict[str, Any]]], chosen: int | None) -> dict[str, Any]:
    """A decoding step with its chosen token. A sampled token need not be among the candidates."""
    candidate = next((one for one in step["combined"] if one["id"] == chosen), None)
    return {
        **step,
        "chosen": chosen,
        "token": "(end)" if chosen is None else candidate["text"] if candidate else "?",
        "probability": candidate["probability"] if candidate else None,
    }
