"""MME: two questions about each image, one to be answered yes and one no, in fourteen subtasks.

MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models (arXiv 2306.13394).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from iava.benchmarks.task import Located, Question
from iava.errors import IavaError

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
HALLUCINATION = ("existence", "count", "position", "color")
SUBTASKS = PERCEPTION + COGNITION
TOTALS = {"perception": PERCEPTION, "cognition": COGNITION, "hallucination": HALLUCINATION}
_PREFIX = 4


def parse_official(text: str) -> str | None:
    """As the benchmark's own script reads answers: "yes", else "no", if its letters are among the first four.

    So "Not sure" is a no and "Eyes" a yes; leading blanks count.
    """
    start = text.lower()[:_PREFIX]
    return next((answer for answer in ("yes", "no") if answer in start), None)


def check_subtask(where: str, name: str) -> str:
    """The name of a subtask.

    Raises:
        IavaError: if MME has no such subtask; begins with `where`.
    """
    if name not in SUBTASKS:
        raise IavaError(f"{where}: MME has no subtask {name!r}: use one of {', '.join(SUBTASKS)}")
    return name


def paired(located: Located) -> Located:
    """Finds out whether every image of a subtask is asked two different questions.

    Args:
        located: questions with any ids.

    Returns:
        The same questions; their ids are "IMAGE-1" and "IMAGE-2".

    Raises:
        IavaError: if an image is asked one question, three, or the same twice; says where.
    """
    images: dict[tuple[str, str], list[tuple[str, Question]]] = {}
    numbered: Located = []
    for where, question in located:
        asked = images.setdefault((question.category, question.image), [])
        if any(question.question == other.question for _, other in asked):
            raise IavaError(f"{where}: image {question.image} was asked this before ({asked[0][0]})")
        if len(asked) == 2:
            raise IavaError(f"{where}: this is the third question about image {question.image}: MME asks two")
        asked.append((where, question))
        numbered.append((where, replace(question, id=f"{question.image}-{len(asked)}")))
    for (_, image), asked in images.items():
        if len(asked) < 2:
            raise IavaError(f"{asked[0][0]}: image {image} has one question: MME asks two about each")
    return numbered


def tally(
    subtasks: Sequence[str], images: Sequence[str], right: Sequence[bool], *, of: Sequence[str] = SUBTASKS
) -> np.ndarray:
    """What each question adds to the sums from which `rates` computes the metrics.

    Args:
        subtasks, images, right: of each question: its subtask, its image, and whether the answer is right.
        of: the subtasks that count; every question must belong to one.

    Returns:
        (Q, 4 * len(of)) float: of each subtask questions, right ones, images, and images with two right ones. An image
        counts with the first of its two questions; one that has lost a question does not count.
    """
    counts = np.zeros((len(right), len(of), 4))
    pairs: dict[tuple[int, str], list[int]] = {}
    for question, (subtask, image) in enumerate(zip(subtasks, images, strict=True)):
        number = of.index(subtask)
        counts[question, number, :2] = 1, right[question]
        pairs.setdefault((number, image), []).append(question)
    for (number, _), asked in pairs.items():
        if len(asked) == 2:
            counts[asked[0], number, 2:] = 1, all(right[question] for question in asked)
    return counts.reshape(len(right), -1)


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """MME's metrics of one subtask or of several together.

    Args:
        sums: (..., 4 * subtasks) sums of `tally`.

    Returns:
        acc (right questions) and acc_plus (images with both right), fractions of 1, over all the subtasks; score, at
        most 200 for each subtask: the sum of 100 * (acc + acc_plus). Each (...); NaN where a subtask has no questions.
    """
    subtasks = sums.reshape(*sums.shape[:-1], -1, 4)
    questions, right, images, both = np.moveaxis(subtasks, -1, 0)
    with np.errstate(invalid="ignore"):
        return {
            "acc": right.sum(axis=-1) / questions.sum(axis=-1),
            "acc_plus": both.sum(axis=-1) / images.sum(axis=-1),
            "score": 100 * (right / questions + both / images).sum(axis=-1),
        }


def score(questions: Sequence[Question], parsed: Sequence[str | None]) -> dict[str, Any]:
    """MME's numbers.

    Args:
        questions: two an image (see `paired`).
        parsed: "yes", "no" or None for each.

    Returns:
        n: questions. unparsed: share of 1. subtasks: for each that was asked n, and the metrics of `rates`. perception
        (at most 2000), cognition (800), hallucination (800): sums of scores. missing: subtasks that were not asked,
        which the sums lack.
    """
    asked = [question.category for question in questions]
    right = [answer == question.truth for question, answer in zip(questions, parsed, strict=True)]
    sums = tally(asked, [question.image for question in questions], right).sum(axis=0).reshape(-1, 4)
    subtasks = {
        name: {"n": int(sums[number, 0])} | {key: float(value) for key, value in rates(sums[number]).items()}
        for number, name in enumerate(SUBTASKS)
        if name in asked
    }
    totals = {
        name: sum((subtasks[part]["score"] for part in parts if part in subtasks), 0.0)
        for name, parts in TOTALS.items()
    }
    missing = [name for name in SUBTASKS if name not in subtasks]
    unparsed = sum(answer is None for answer in parsed) / max(1, len(right))
    return {"n": len(right), "unparsed": unparsed, "subtasks": subtasks, **totals, "missing": missing}
