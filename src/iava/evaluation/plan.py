"""What a run measures and how."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from iava.benchmarks.benchmark import PROMPT_STYLES, Benchmark
from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.find import find
from iava.benchmarks.sources.ids import read_ids, with_ids
from iava.benchmarks.task import Question, Task, first_groups, of_groups, shard
from iava.errors import IavaError
from iava.methods.registry import resolve


@dataclass(frozen=True)
class Plan:
    """What is measured and how.

    Args:
        model: the name under which the model was loaded.
        methods: command-line name -> parameters, in the order of the results. A method with a general instruction takes
            the benchmark's, if it has one and no other is chosen.
        split: of the pocket scenes, or that of the data; None: "test", or the one there is.
        limit: the first so many images with all their questions; None: all.
        seed: of sampling, of bootstrap intervals, and of `sample`.
        max_new_tokens: the length of an answer; None: the benchmark's.
        parser: of closed answers, of the benchmark's parsers; None: its default.
        tune_images: images on which the constant bias is fitted: of the pocket split "tune", or the data's first.
        benchmark: a data set, of `iava.benchmarks.registry.BENCHMARKS`.
        data: holds a folder for each data set, or is the data set's own; None: the pocket scenes.
        shard: (number, count): only that part of the images, number from 1; None: all.
        prompt_style: of `iava.benchmarks.benchmark.PROMPT_STYLES`; None: the benchmark's default.
        suffix: text behind each question, after a blank if it does not begin with white space.
        category: only the questions of this part of the benchmark, such as "random" or "generative".
        sample: so many images, drawn at random with the seed; None: all.
        ids: a file of ids: only these images or questions; None: all.
        options: of the benchmark, such as {"ocr": True} of TextVQA.
        system_prompt: text before the question, in the place that the chat template has for it; None: none.

    Raises:
        IavaError: if something is out of range, or the constant bias has nothing to be fitted to.
    """

    model: str
    methods: Mapping[str, Mapping[str, Any]]
    split: str | None = None
    limit: int | None = None
    seed: int = 42
    max_new_tokens: int | None = None
    parser: str | None = None
    tune_images: int = 100
    benchmark: str = "pope"
    data: Path | None = None
    shard: tuple[int, int] | None = None
    prompt_style: str | None = None
    suffix: str | None = None
    category: str | None = None
    sample: int | None = None
    ids: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if not self.methods:
            raise IavaError("no method is named: use a list such as greedy,apc,bias,iava")
        for name in ("max_new_tokens", "tune_images", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise IavaError(f"{name} is {value}: it must be at least 1")
        if self.prompt_style is not None and self.prompt_style not in PROMPT_STYLES:
            raise IavaError(f"unknown prompt style {self.prompt_style!r}: use one of {', '.join(PROMPT_STYLES)}")
        if self.sample is not None and self.ids is not None:
            raise IavaError("sample and ids are given: a list of ids cannot be drawn from, leave one out")
        self.asked.parser_name(self.parser)
        object.__setattr__(self, "methods", {name: self._with_general(name, own) for name, own in self.methods.items()})
        checked = [name for name in self.methods if resolve(name).several_calls]
        if checked and not self.asked.names_things:
            raise IavaError(
                f"{checked[0]} asks about the things that a caption names, and {self.benchmark} asks for no caption: "
                "leave it out"
            )
        if "bias" in self.methods and not self.asked.asks_yes_no:
            raise IavaError(f"bias moves yes against no, and {self.benchmark} asks for neither: leave it out")
        if self.fitted and set(self.methods) == {"bias"}:
            raise IavaError("bias is fitted to the yes-rate of another method: name one, such as greedy,bias,iava")

    def _with_general(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        general = self.asked.general(self.category)
        if general is None or "general" not in resolve(method)().settings():
            return settings
        return {"general": general, **settings}

    @cached_property
    def asked(self) -> Benchmark:
        """The benchmark.

        Raises:
            IavaError: if there is none of this name, or an option is not one of its own.
        """
        return benchmark(self.benchmark, **self.options)

    @property
    def style(self) -> str:
        """The prompt style."""
        return self.prompt_style or self.asked.style

    @property
    def fitted(self) -> bool:
        """Whether the constant bias is among the methods and must be fitted."""
        return "bias" in self.methods and "bias" not in self.methods["bias"]

    @property
    def bias_target(self) -> str:
        """The method whose yes-rate the constant bias copies: IAVA, or the last one named."""
        return "iava" if "iava" in self.methods else [name for name in self.methods if name != "bias"][-1]

    @property
    def length(self) -> int:
        """The most tokens of an answer."""
        return self.max_new_tokens or self.asked.max_new_tokens

    def parse(self, question: Question, text: str) -> Any:
        """What a text answers to a question of `questions`, ready for JSON."""
        return self.asked.read(self.questions, question, text, self.parser)

    @cached_property
    def questions(self) -> Task:
        """All questions as they are asked, before any is left out.

        Raises:
            IavaError: if they cannot be found or are broken.
        """
        return self._prompted(find(self.asked, self.data, self.split))

    def _prompted(self, task: Task) -> Task:
        suffix = self.suffix or ""
        blank = " " if suffix and not suffix[0].isspace() else ""

        def prompt(question: Question) -> Question:
            return replace(question, question=f"{self.asked.prompt(question, self.style)}{blank}{suffix}")

        return replace(task, questions=[prompt(question) for question in task.questions])

    @cached_property
    def chosen(self) -> Task:
        """The questions of the category and the sample, or those whose ids are listed.

        Raises:
            IavaError: as `questions`, and if there are no such questions, or too few images to draw from.
        """
        task = self.questions
        if self.category is not None:
            task = _of_category(self.asked, task, self.category)
        if self.ids is not None:
            task = with_ids(task, read_ids(self.ids), self.ids)
        if self.sample is not None:
            if self.sample > len(task.groups):
                raise IavaError(f"sample is {self.sample}: there are {len(task.groups)} images")
            task = of_groups(task, random.Random(self.seed).sample(sorted(task.groups), self.sample))
        return task

    @cached_property
    def task(self) -> Task:
        """The questions that are asked.

        Raises:
            IavaError: as `chosen`, and if limit or shard are out of range, or the oracle has no regions.
        """
        limited = first_groups(self.chosen, self.limit)
        if "oracle" in self.methods and any(question.region is None for question in limited.questions):
            raise IavaError(f"oracle must know which region answers each question, and {self.benchmark} does not say")
        return shard(limited, *self.shard) if self.shard else limited

    @cached_property
    def tune(self) -> Task:
        """The questions that the constant bias is fitted on; the same for every shard."""
        task = self._prompted(find(self.asked, None, "tune")) if self.data is None else self.questions
        return first_groups(replace(task, questions=[q for q in task.questions if q.is_yes_no]), self.tune_images)

    @property
    def selection(self) -> dict[str, Any]:
        """Which questions are asked and how they are put, for the manifest. What is not chosen is None."""
        chosen = None
        if self.ids is not None:
            ids = "\n".join(question.id for question in self.chosen.questions)
            chosen = hashlib.sha256(ids.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return {
            "prompt_style": self.prompt_style,
            "suffix": self.suffix,
            "system_prompt": self.system_prompt,
            "category": self.category,
            "sample": self.sample,
            "ids": chosen,
            "options": self.asked.settings() or None,
        }


def _of_category(asked: Benchmark, task: Task, name: str) -> Task:
    parts = asked.parts(list(dict.fromkeys(question.category for question in task.questions)))
    part = next((part for part in parts if part.name == name), None)
    if part is None:
        raise IavaError(f"unknown category {name!r} of {asked.name}: use one of {', '.join(_part_names(parts))}")
    return replace(task, questions=[question for question in task.questions if part.holds(question.category)])


def _part_names(parts: Sequence[Any]) -> list[str]:
    return [part.name for part in parts]
