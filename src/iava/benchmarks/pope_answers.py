"""Answers to POPE's questions in the formats of several projects, joined with the questions and their labels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iava.benchmarks.task import Question
from iava.errors import IavaError
from iava.jsonfiles import id_of, read_lines, text_of, yes_or_no

CATEGORIES = ("random", "popular", "adversarial")

PopeAnswer = tuple[str, Question, str]
"""The place of an answer, its question, and the text."""


def read_answers(path: Path, questions: Path | None) -> Iterator[PopeAnswer]:
    """Reads answers to POPE's questions.

    Args:
        path: {question_id, category, answer, prediction}; with `questions` also {question_id, text} as VCD and LLaVA
            write it, or {question, answer} as POPE's own script reads it, in the order of the questions.
        questions: a file of POPE's with labels, or a folder of such files, whose names say so or name a category.
            They may lie in its subfolder coco/. LLaVA's llava_pope_test.jsonl may lie among them: it numbers the
            questions of all categories.

    Raises:
        IavaError: if a file is broken, or an answer has no question, or names another image than its question.
    """
    rows = list(read_lines(path))
    first = rows[0][1]
    if "prediction" in first or ("question_id" in first and "text" not in first):
        yield from map(_own, rows)
        return
    if questions is None:
        raise IavaError(f"{path} holds no labels: give --questions with POPE's files")
    known = _Questions(questions)
    if "question_id" not in first:
        yield from known.in_order(rows)
        return
    for where, row in rows:
        question = known.find(where, id_of(where, row, "question_id"), path)
        if "image" in row and row["image"] != question.image:
            raise IavaError(
                f"{where}: this answers a question about {row['image']}, and the question there is about "
                f"{question.image}: give --questions with the file that was asked"
            )
        yield where, question, text_of(where, row, "text")


def category_of(name: str) -> str | None:
    """The category that a file's name says."""
    named = [category for category in CATEGORIES if category in name.lower()]
    return named[0] if len(named) == 1 else None


def _own(place: tuple[str, dict[str, Any]]) -> PopeAnswer:
    where, row = place
    category, number = text_of(where, row, "category"), id_of(where, row, "question_id")
    truth = yes_or_no(where, row, "answer")
    # POPE numbers the questions of each category from one.
    question = Question(f"{number} of category {category}", (), category, number, truth)
    return where, question, text_of(where, row, "prediction")


class _Questions:
    """Questions with labels, and perhaps LLaVA's numbers for them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._labelled: dict[tuple[str, str], Question] = {}
        self._by_text: dict[tuple[str, str, str], Question] = {}
        self._numbered: dict[str, tuple[str, str, str]] = {}
        files = sorted([*path.glob("*.json*"), *path.glob("coco/*.json*")]) if path.is_dir() else [path]
        # Other JSON files may lie beside the questions.
        for file in [one for one in files if category_of(one.stem) or "pope" in one.name.lower()] or files:
            for where, row in read_lines(file):
                self._add(where, row, file)
        if not self._labelled:
            raise IavaError(f"{path} holds no questions with labels: give POPE's own files, or a folder that has them")

    def _add(self, where: str, row: dict[str, Any], file: Path) -> None:
        category = text_of(where, row, "category") if "category" in row else category_of(file.stem)
        if category is None:
            raise IavaError(f"{where}: 'category' is missing, and the file's name does not say it")
        number, image = id_of(where, row, "question_id"), text_of(where, row, "image")
        # LLaVA's file holds its prompt's ending on a second line.
        text = text_of(where, row, "text").split("\n")[0].strip()
        if "label" not in row:
            self._numbered[number] = (category, image, text)
            return
        name = f"{number} of category {category}"
        question = Question(name, (image,), category, text, yes_or_no(where, row, "label"))
        self._labelled[category, number] = self._by_text[category, image, text] = question

    def find(self, where: str, number: str, answers: Path) -> Question:
        if number in self._numbered:
            category, image, text = self._numbered[number]
            if (category, image, text) not in self._by_text:
                raise IavaError(f"{where}: question {number} ({text!r} about {image}, {category}) has no label")
            return self._by_text[category, image, text]
        named = category_of(answers.stem)
        found = [
            question
            for (category, other), question in self._labelled.items()
            if other == number and named in (None, category)
        ]
        if not found:
            raise IavaError(f"{where}: {self._path} has no question {number}")
        if len(found) > 1:
            kinds = ", ".join(question.category for question in found)
            raise IavaError(f"{where}: question {number} is in several categories ({kinds}): give one file at a time")
        return found[0]

    def in_order(self, rows: list[tuple[str, dict[str, Any]]]) -> Iterator[PopeAnswer]:
        asked = list(self._labelled.values())
        if len(rows) != len(asked):
            raise IavaError(
                f"{self._path} has {len(asked)} questions and there are {len(rows)} answers: without ids each question "
                "must have one, in order"
            )
        for (where, row), question in zip(rows, asked, strict=True):
            said = text_of(where, row, "question").split("\n")[0].strip()
            if said.lower() != question.question.lower():
                raise IavaError(f"{where}: this answers {said!r}, and the question there is {question.question!r}")
            yield where, question, text_of(where, row, "answer")
