"""MMVP: pairs of images that CLIP takes for alike, with one question of two choices about both.

Eyes Wide Shut? Exploring the Visual Shortcomings of Multimodal LLMs (arXiv 2401.06209). A pair counts if both answers
are right. The authors let GPT-4 judge free answers; here a parser reads the choice.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from iava.benchmarks.benchmark import Benchmark, Hub, Predictions, unopened
from iava.benchmarks.parsers import Parser, choice
from iava.benchmarks.sources.csvfiles import read_csv
from iava.benchmarks.sources.files import folder_task, found
from iava.benchmarks.task import Located, Question, Task
from iava.errors import IavaError
from iava.jsonfiles import Unique, id_of, read_lines, text_of, words_of
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share

_OPTION = re.compile(r"\(([a-z])\)\s*([^(]*[^(\s])")


class MMVP(Benchmark):
    """MMVP's 300 questions."""

    source = "Questions.csv and MMVP Images/ of huggingface.co/datasets/MMVP/MMVP"
    hub = Hub(("MMVP/MMVP",), "test", patterns=("Questions.csv", "MMVP Images/*"))
    parsers: ClassVar[Mapping[str, Parser]] = {"choice": choice}

    def load(self, folder: Path) -> Task:
        """Reads Questions.csv: Index, Question, Options "(a) Open (b) Closed", Correct Answer "(a)".

        Two questions that follow one another are a pair, and each is about the image of its number.
        """
        file = found(folder, "Questions.csv")[0]
        ids = Unique("Index")
        located: Located = []
        for where, row in read_csv(file):
            number = id_of(where, row, "Index")
            ids.add(where, number)
            question = words_of(where, row, "Question"), text_of(where, row, "Options")
            located.append((where, _mmvp_question(where, number, *question, text_of(where, row, "Correct Answer"))))
        return folder_task(self.name, "test", located, folder)

    def prompt(self, question: Question, style: str) -> str:
        """As the authors ask ("plain", "vcd"), or as LLaVA and lmms-eval ask for the letter of a choice."""
        if style in ("plain", "vcd"):
            listed = " ".join(f"({letter}) {words}" for letter, words in _lettered(question))
            return f"{question.question} {listed}"
        listed = "\n".join(f"{letter.upper()}. {words}" for letter, words in _lettered(question))
        return f"{question.question}\n{listed}\nAnswer with the option's letter from the given choices directly."

    def is_answer(self, row: Record) -> bool:
        """The truth is the letter of a choice, the parsed answer a letter or None; the group is a pair."""
        return isinstance(row["truth"], str) and isinstance(row.get("parsed", 0), str | None) and "group" in row

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall: accuracy of questions and of pairs."""
        return [Part("overall", lambda _: True, tally, rates, "pair_accuracy")]

    def right(self, records: Sequence[Record]) -> float:
        """1 if all answers to a pair are right, else 0."""
        return float(all(record["parsed"] == record["truth"] for record in records))

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads the answers of the authors' script: {question_id, prompt, answer "(a)", response}."""
        questions, texts, places = [], [], []
        ids = Unique("question_id")
        for where, row in read_lines(path):
            number, asked = id_of(where, row, "question_id"), text_of(where, row, "prompt")
            ids.add(where, number)
            questions.append(_mmvp_question(where, number, asked, asked, text_of(where, row, "answer")))
            texts.append(text_of(where, row, "response"))
            places.append(where)
        return Predictions(Task(self.name, "test", questions, unopened), texts, places)


def _mmvp_question(where: str, number: str, asked: str, options: str, answer: str) -> Question:
    choices = [words.strip() for _, words in _OPTION.findall(options)]
    truth = answer.strip().lower().strip("()")
    if len(choices) < 2:
        raise IavaError(f"{where}: there are no choices in {options!r}: it must be such as (a) Open (b) Closed")
    if not number.isdecimal() or int(number) < 1:
        raise IavaError(f"{where}: the number of the question is {number!r}: it must be 1, 2, ...")
    if truth not in "abcdefgh"[: len(choices)] or len(truth) != 1:
        raise IavaError(f"{where}: the answer is {answer!r}: it must be one of the choices, such as (a)")
    pair = f"pair {(int(number) + 1) // 2}"
    return Question(number, (f"{number}.jpg",), "mmvp", asked, truth, choices=tuple(choices), group=pair)


def _lettered(question: Question) -> list[tuple[str, str]]:
    return list(zip("abcdefgh", question.choices, strict=False))


def tally(records: Sequence[Record]) -> np.ndarray:
    """(Q, 5) float: questions, right ones, unparsed ones, pairs, and pairs with two right answers.

    A pair counts with its first question. A pair that lost a question does not count.
    """
    rows = np.zeros((len(records), 5))
    pairs: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        rows[number, :3] = 1, record["parsed"] == record["truth"], record["parsed"] is None
        pairs.setdefault(record["group"], []).append(number)
    for asked in pairs.values():
        if len(asked) == 2:
            rows[asked[0], 3:] = 1, rows[asked, 1].all()
    return rows


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 5) sums of `tally` -> pair_accuracy, accuracy and unparsed, fractions of 1; 0 where nothing was counted."""
    questions, right, unparsed, pairs, both = np.moveaxis(sums, -1, 0)
    return {
        "pair_accuracy": share(both, pairs),
        "accuracy": share(right, questions),
        "unparsed": share(unparsed, questions),
    }
