"""MME: two questions about each image, one to be answered yes and one no, in fourteen subtasks.

MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models (arXiv 2306.13394).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from iava.bench.task import Located, Question

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
        ValueError: if MME has no such subtask; begins with `where`.
    """
    if name not in SUBTASKS:
        raise ValueError(f"{where}: MME has no subtask {name!r}: use one of {', '.join(SUBTASKS)}")
    return name


def paired(located: Located) -> Located:
    """Finds out whether every image of a subtask is asked two different questions.

    Args:
        located: questions with any ids.

    Returns:
        The same questions; their ids are "IMAGE-1" and "IMAGE-2".

    Raises:
        ValueError: if an image is asked one question, three, or the same twice; says where.
    """
    images: dict[tuple[str, str], list[tuple[str, Question]]] = {}
    numbered: Located = []
    for where, question in located:
        asked = images.setdefault((question.category, question.image), [])
        if any(question.question == other.question for _, other in asked):
            raise ValueError(f"{where}: image {question.image} was asked this before ({asked[0][0]})")
        if len(asked) == 2:
            raise ValueError(f"{where}: this is the third question about image {question.image}: MME asks two")
        asked.append((where, question))
        numbered.append((where, replace(question, id=f"{question.image}-{len(asked)}")))
    for (_, image), asked in images.items():
        if len(asked) < 2:
            raise ValueError(f"{asked[0][0]}: image {image} has one question: MME asks two about each")
    return numbered


def score(questions: Iterable[Question], parsed: Iterable[str | None]) -> dict[str, Any]:
    """MME's numbers.

    Args:
        questions: two an image (see `paired`).
        parsed: "yes", "no" or None for each.

    Returns:
        n: questions. unparsed: share of 1. subtasks: for each that was asked n, acc (right questions), acc_plus
        (images with both right), fractions of 1, and score = 100 * (acc + acc_plus), at most 200. perception (at most
        2000), cognition (800), hallucination (800): sums of scores. missing: subtasks that were not asked, which the
        sums lack.
    """
    right: dict[str, dict[str, list[bool]]] = {}
    unparsed = total = 0
    for question, answer in zip(questions, parsed, strict=True):
        images = right.setdefault(question.category, {})
        images.setdefault(question.image, []).append(answer == question.truth)
        unparsed += answer is None
        total += 1
    subtasks = {name: _subtask(list(right[name].values())) for name in SUBTASKS if name in right}
    sums = {
        name: sum((subtasks[part]["score"] for part in parts if part in subtasks), 0.0)
        for name, parts in TOTALS.items()
    }
    missing = [name for name in SUBTASKS if name not in subtasks]
    share = unparsed / total if total else 0.0
    return {"n": total, "unparsed": share, "subtasks": subtasks, **sums, "missing": missing}


def _subtask(images: list[list[bool]]) -> dict[str, float]:
    answers = [right for pair in images for right in pair]
    acc = sum(answers) / len(answers)
    acc_plus = sum(all(pair) for pair in images) / len(images)
    return {"n": len(answers), "acc": acc, "acc_plus": acc_plus, "score": 100 * (acc + acc_plus)}
