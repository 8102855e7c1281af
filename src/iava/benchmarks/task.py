"""What a benchmark asks: questions about images, independent of the files that they were read from."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image

from iava.errors import IavaError
from iava.jsonfiles import Unique

Region = tuple[tuple[float, float, float, float], ...]
"""Boxes (x0, y0, x1, y1) in pixels."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Args:
        id: unique in its split, such as "test-00007-adversarial-3".
        images: the ids of the images that it is about: none, one or several.
        category: such as "random", "popular" or "adversarial".
        question: the text that the model is asked.
        truth: "yes" or "no"; the letter of a choice, such as "a"; TextVQA: the list of ten answers; captions: the list
            of objects in the image.
        region: the part of the image that answers the question, where it is known.
        choices: the answers to choose from, "a" first; empty for all other questions.
        group: questions of one group are judged together. Limits, shards and intervals never separate them. The
            default is the image.
    """

    id: str
    images: tuple[str, ...]
    category: str
    question: str
    truth: Any
    region: Region | None = None
    choices: tuple[str, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.image or self.id)

    @property
    def image(self) -> str:
        """The image's id; of several images their ids joined; of none an empty string."""
        return " + ".join(self.images)

    @property
    def is_yes_no(self) -> bool:
        """Whether the answer must be yes or no."""
        return self.truth in ("yes", "no")

    @property
    def is_closed(self) -> bool:
        """Whether the answer is one of a few that the question names. A parser reads such answers."""
        return self.is_yes_no or bool(self.choices)

    @property
    def extras(self) -> dict[str, Any]:
        """What only some questions have, ready for JSON: choices, and a group of their own."""
        choices: dict[str, Any] = {"choices": list(self.choices)} if self.choices else {}
        return choices | ({} if self.group == self.image else {"group": self.group})


Unit = tuple[str, str]
"""Questions that are asked together: their group and their image (see `Question.image`)."""

Located = list[tuple[str, Question]]
"""Questions, and the place where each was read, such as "answers.jsonl, line 7", for messages about it."""


def with_unique_ids(located: Located, name: str = "question_id") -> Located:
    """The same questions, if no id stands twice among them.

    Args:
        name: of the field that gives the id, for the message.

    Raises:
        IavaError: if an id stands twice; says where.
    """
    ids = Unique(name)
    for where, question in located:
        ids.add(where, question.id)
    return located


@dataclass(frozen=True)
class Task:
    """A benchmark's questions with the images that they are about. Questions of one group stand together.

    Args:
        benchmark: the data set's name, such as "pope".
        split: such as "test".
        questions: in the order in which they are asked.
        open_image: gives an image by its id. It may raise OSError or IavaError.
        read: what a text answers to an open question (see `Question.is_closed`), ready for JSON.
    """

    benchmark: str
    split: str
    questions: list[Question]
    open_image: Callable[[str], Image.Image]
    read: Callable[[Question, str], Any] | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when a question does."""
        rows = [
            [q.id, q.image, q.category, q.question, q.truth, q.region, *([q.extras] if q.extras else [])]
            for q in self.questions
        ]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:12]

    @property
    def images(self) -> list[str]:
        """The images' ids, in the order in which they are asked about."""
        return list(dict.fromkeys(image for question in self.questions for image in question.images))

    @property
    def groups(self) -> list[str]:
        """The groups, in the order in which they are asked."""
        return list(dict.fromkeys(question.group for question in self.questions))

    @cached_property
    def units(self) -> dict[Unit, list[Question]]:
        """The questions that are asked together: those of one group about the same images."""
        together: dict[Unit, list[Question]] = {}
        for question in self.questions:
            together.setdefault((question.group, question.image), []).append(question)
        return together


def first_groups(task: Task, limit: int | None) -> Task:
    """A task's first groups of questions, by default all questions about its first images. None: all.

    Raises:
        IavaError: if the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise IavaError(f"limit is {limit}: it must be at least 1")
    return of_groups(task, task.groups[:limit])


def shard(task: Task, number: int, count: int) -> Task:
    """Part `number` (1, 2, ...) of `count` parts of a task: every `count`-th group with all its questions.

    Raises:
        IavaError: if there is no such part, or no group left for it.
    """
    if not 1 <= number <= count:
        raise IavaError(f"shard is {number}/{count}: it must be from 1/{count} to {count}/{count}")
    groups = task.groups[number - 1 :: count]
    if not groups:
        raise IavaError(f"shard {number}/{count} is empty: there are {len(task.groups)} images")
    return of_groups(task, groups)


def of_groups(task: Task, groups: Sequence[str]) -> Task:
    """The questions of some groups, in their order."""
    wanted = set(groups)
    return replace(task, questions=[question for question in task.questions if question.group in wanted])


def by_group(questions: Sequence[Question]) -> list[Question]:
    """The questions in their order, except that each group stands where its first question does."""
    together: dict[str, list[Question]] = {}
    for question in questions:
        together.setdefault(question.group, []).append(question)
    return [question for group in together.values() for question in group]
