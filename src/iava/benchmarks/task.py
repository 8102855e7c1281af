"""What a benchmark asks: questions about images, whatever they were read from."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image

from iava.errors import IavaError


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

    @property
    def polar(self) -> bool:
        """Whether it is to be answered with yes or no."""
        return self.truth in ("yes", "no")


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
        read: what an answer says, ready for JSON, of questions that are not answered with yes or no.
    """

    benchmark: str
    split: str
    questions: list[Question]
    open_image: Callable[[str], Image.Image]
    read: Callable[[Question, str], Any] | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when a question does."""
        text = json.dumps([astuple(question) for question in self.questions], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def images(self) -> list[str]:
        """The images' ids, in the order in which they are asked about."""
        return list(self.by_image)

    @cached_property
    def by_image(self) -> dict[str, list[Question]]:
        """The questions about each image."""
        return _grouped(self.questions)


def first_images(task: Task, limit: int | None) -> Task:
    """A task's first so many images with all their questions; None: all.

    Raises:
        IavaError: if the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise IavaError(f"limit is {limit}: it must be at least 1")
    return _about(task, task.images[:limit])


def shard(task: Task, number: int, count: int) -> Task:
    """Part `number` (1, 2, ...) of `count` parts of a task: every `count`-th image with all its questions.

    Raises:
        IavaError: if there is no such part, or no image left for it.
    """
    if not 1 <= number <= count:
        raise IavaError(f"shard is {number}/{count}: it must be from 1/{count} to {count}/{count}")
    images = task.images[number - 1 :: count]
    if not images:
        raise IavaError(f"shard {number}/{count} is empty: there are {len(task.images)} images")
    return _about(task, images)


def _about(task: Task, images: Sequence[str]) -> Task:
    wanted = set(images)
    return replace(task, questions=[question for question in task.questions if question.image in wanted])


def by_image(questions: Sequence[Question]) -> list[Question]:
    """The questions in their order, but those of one image together, where its first one stands."""
    return [question for group in _grouped(questions).values() for question in group]


def _grouped(questions: Sequence[Question]) -> dict[str, list[Question]]:
    together: dict[str, list[Question]] = {}
    for question in questions:
        together.setdefault(question.image, []).append(question)
    return together
