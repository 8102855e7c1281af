"""The contract of a benchmark: what it asks, how answers are read, and what its numbers are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from iava.benchmarks.parsers import Parser
from iava.benchmarks.task import Question, Task
from iava.errors import IavaError
from iava.metrics.parts import Part, Record
from iava.pocket.scenes import Scene


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face Hub: parquet files with the images inside.

    Args:
        names: such as "lmms-lab/POPE"; several if it was moved or copied, the one to download first.
        split: the split that is asked. The names of its files begin with it.
        columns: that its rows must have beside "image".
        patterns: of the files to download; empty: the parquet files of the split.
    """

    names: tuple[str, ...]
    split: str
    columns: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of the files to download."""
        return self.patterns or (f"data/{self.split}-*.parquet",)


@dataclass(frozen=True)
class Predictions:
    """Answers that something else produced, with their questions.

    Args:
        task: the questions, each answered once. Its images cannot be opened.
        texts: an answer for each question.
        places: where each answer was read, for messages.
    """

    task: Task
    texts: list[str]
    places: list[str]


CAPTION_GENERAL = "Is there an object in the image?"
"""The general instruction for captions. The usual one is the question itself here, so that no token would be
irrelevant to it. Of eight this one has the lowest CHAIRi on the pocket split `tune` (docs/concepts/frontier.md)."""

PROMPT_STYLES = {
    "plain": "{}",
    "llava": "{}\nAnswer the question using a single word or phrase.",
    "vcd": "{} Please answer this question with one word.",
    "lmms-eval": "{}\nAnswer the question using a single word or phrase.",
    "pai": "{}",
}
"""Prompt styles: what LLaVA-1.5's evaluation, VCD's scripts, lmms-eval and PAI's scripts put behind a question."""


class Benchmark(ABC):
    """One benchmark, or several data sets of one kind.

    Args:
        name: the data set's name, of `iava.benchmarks.registry.BENCHMARKS`.

    Attributes:
        source: which files its authors publish, for `iava data check`.
        hub: its data set on the Hugging Face Hub; None if there is none that can be read.
        asks_yes_no: whether questions must be answered with yes or no.
        parsers: of closed answers by name, the default first. Empty if no question is closed.
        style: the default prompt style, of `PROMPT_STYLES`.
        max_new_tokens: the length of an answer, unless it is chosen.
        has_pocket: whether there is a version about the pocket scenes.
        names_things: whether answers are captions, read as the list of the things that they name.
        score_files: files that `predictions` takes beside the answers, such as "instances".
    """

    source: str
    hub: Hub | None = None
    asks_yes_no: ClassVar[bool] = False
    parsers: ClassVar[Mapping[str, Parser]] = {}
    style: ClassVar[str] = "plain"
    max_new_tokens: ClassVar[int] = 16
    has_pocket: bool = False
    names_things: ClassVar[bool] = False
    score_files: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def load(self, folder: Path) -> Task:
        """Reads the data set from its folder: as on the Hub if there are parquet files, else as its authors publish it.

        Raises:
            IavaError: if something is missing or broken; with file and line.
        """

    @abstractmethod
    def parts(self, categories: Sequence[str]) -> list[Part]:
        """The rows of the results table that questions of these categories make, "overall" first."""

    @abstractmethod
    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads a file of answers.

        Args:
            path: one answer a line.
            files: of `score_files`, those that were given.

        Raises:
            IavaError: if something is missing or broken; with file and line.
        """

    def settings(self) -> dict[str, Any]:
        """The options that it was made with, other than the defaults, ready for JSON."""
        return {}

    def general(self, category: str | None) -> str | None:
        """The general instruction of methods that have one, unless it is chosen; None: the methods' own.

        Args:
            category: the part of the benchmark that is asked; None: all of it.
        """
        return None

    def prompt(self, question: Question, style: str) -> str:
        """What the model is asked.

        Args:
            style: of `PROMPT_STYLES`. Open questions, such as captions, are the same in all styles.
        """
        return PROMPT_STYLES[style].format(question.question) if question.is_closed else question.question

    def pocket(self, scenes: Sequence[Scene]) -> list[Question]:
        """Questions of this benchmark's kind about pocket scenes, where `has_pocket` says that there are any."""
        raise NotImplementedError

    def read_pocket(self, text: str) -> Any:
        """What a text answers to an open question about a pocket scene."""
        raise NotImplementedError

    def read(self, task: Task, question: Question, text: str, parser: str | None) -> Any:
        """What a text answers to a question, ready for JSON.

        Args:
            task: the question's, which reads open answers.
            parser: the name of the parser that reads closed answers; None: the default.
        """
        if question.is_closed:
            name = self.parser_name(parser)
            assert name is not None
            return self.parsers[name](text, question)
        assert task.read is not None
        return task.read(question, text)

    def read_again(self, record: Record, parser: str | None) -> Record:
        """A record with what a parser reads from its text. Errors and open answers stay as they are.

        Args:
            parser: its name; None: as it is.
        """
        question = Question(
            record["id"],
            (record["image"],),
            record["category"],
            record["question"],
            record["truth"],
            choices=tuple(record.get("choices", ())),
        )
        if "error" in record or not question.is_closed or parser is None:
            return record
        return {**record, "parsed": self.parsers[parser](record["text"], question)}

    def is_record(self, row: Any) -> bool:
        """Whether something that was read from a file has the shape of a record of this benchmark."""
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _RECORD_TEXTS):
            return False
        if not self.is_category(row["category"]) or not is_texts(row.get("choices", [])):
            return False
        logits = [row[key] for key in ("yes", "no") if key in row]
        if "error" in row:
            return isinstance(row["error"], str) and "truth" in row
        return (
            "truth" in row
            and all(_is_number(row[key]) for key in ("seconds", "selected") if key in row)
            and "seconds" in row
            and isinstance(row.get("group", ""), str)
            and (not logits or (len(logits) == 2 and all(map(_is_number, logits))))
            and self.is_answer(row)
        )

    def is_category(self, name: str) -> bool:
        """Whether the benchmark has questions of a category."""
        return True

    def is_answer(self, row: Record) -> bool:
        """Whether a record's truth and parsed answer can be judged; see `right` and `parts`."""
        return row["truth"] in ("yes", "no") and row.get("parsed", "") in ("yes", "no", None)

    def right(self, records: Sequence[Record]) -> float:
        """How right a method is on one unit of evidence, 0 to 1: here the share of answers that equal the truth."""
        return sum(record["parsed"] == record["truth"] for record in records) / len(records)

    def score(self, records: Sequence[Record]) -> dict[str, Any]:
        """The numbers of `iava score`: of each part n and its metrics, as fractions of 1.

        Returns:
            overall, and categories: the other parts. Where there is one part only, its numbers alone.
        """
        parts = self.parts(list(dict.fromkeys(record["category"] for record in records)))
        overall, *others = (metrics_of(part, records) for part in parts)
        names = [part.name for part in parts[1:]]
        return {"overall": overall, "categories": dict(zip(names, others, strict=True))} if others else overall

    def parser_name(self, name: str | None) -> str | None:
        """The name of a parser; None: the default, if there is one.

        Raises:
            IavaError: if there is no such parser.
        """
        if name is None:
            return next(iter(self.parsers), None)
        if not self.parsers:
            raise IavaError(f"--parser was given, but {self.name} is not answered with yes or no")
        if name == "substring":
            raise IavaError("the parser substring is gone, because no paper reads so: use pope, opera or vcd")
        if name not in self.parsers:
            raise IavaError(f"unknown parser {name!r} for {self.name}: use one of {', '.join(self.parsers)}")
        return name


_RECORD_TEXTS = ("id", "image", "split", "category", "method", "question", "text")


_LARGEST = 1e15


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Logits may be infinite; an integer of any size may not be a float.
    return number and (isinstance(value, float) or abs(value) < _LARGEST)


def is_texts(value: Any) -> bool:
    """Whether something is a list of strings."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def metrics_of(part: Part, records: Sequence[Record]) -> dict[str, Any]:
    """n and the metrics of a part, over those of the records that belong to it."""
    held = [record for record in records if part.holds(record["category"])]
    sums = part.tally(held).sum(axis=0)
    return {"n": len(held)} | {name: float(value) for name, value in part.rates(sums).items()}


def needed(benchmark: str, files: Mapping[str, Path], option: str) -> Path:
    """One of the files that were given.

    Raises:
        IavaError: if it was not given.
    """
    if option not in files:
        raise IavaError(f"{benchmark} needs --{option}: the file that says what is in the images")
    return files[option]


def unopened(image: str) -> Any:
    """The `open_image` of predictions."""
    raise AssertionError(f"{image}: predictions are read without images")
