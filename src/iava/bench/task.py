"""What a benchmark asks: questions about images, whatever they were read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Args:
        id: unique in its split, such as "test-00007-adversarial-3".
        image: the image's id.
        category: such as "random", "popular" or "adversarial".
        question: what the model is asked.
        truth: "yes" or "no"; TextVQA: the list of ten answers; captions: the list of objects in the image.
        region: where it is known which part of the image answers the question, its boxes (x0, y0, x1, y1) in pixels.
    """

    id: str
    image: str
    category: str
    question: str
    truth: Any
    region: tuple[tuple[float, float, float, float], ...] | None = None


Located = list[tuple[str, Question]]
"""Questions, and where each was read, such as "answers.jsonl, line 7", for messages about it."""


@dataclass(frozen=True)
class Task:
    """A benchmark's questions with the images they are about; questions of one image stand together.

    Args:
        benchmark: such as "pope".
        split: such as "test".
        questions: in the order in which they are asked.
        open_image: gives an image by its id; may raise OSError or ValueError.
    """

    benchmark: str
    split: str
    questions: list[Question]
    open_image: Callable[[str], Image.Image]


def by_image(questions: Sequence[Question]) -> list[Question]:
    """The questions in their order, but those of one image together, where its first one stands."""
    together: dict[str, list[Question]] = {}
    for question in questions:
        together.setdefault(question.image, []).append(question)
    return [question for group in together.values() for question in group]
