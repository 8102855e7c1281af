"""What a run measures and how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from iava.benchmarks.benchmark import Benchmark
from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.find import find
from iava.benchmarks.task import Question, Task, first_groups, shard
from iava.errors import IavaError


@dataclass(frozen=True)
class Plan:
    """What is measured and how.

    Args:
        model: the name under which the model was loaded.
        methods: command-line name -> parameters, in the order of the results.
        split: of the pocket scenes, or that of the data; None: "test", or the one there is.
        limit: the first so many images with all their questions; None: all.
        seed: of sampling and of bootstrap intervals.
        max_new_tokens: the length of an answer; None: the benchmark's.
        parser: of closed answers, of the benchmark's parsers; None: its default.
        tune_images: images on which the constant bias is fitted: of the pocket split "tune", or the data's first.
        benchmark: a data set, of `iava.benchmarks.registry.BENCHMARKS`.
        data: holds a folder for each data set; None: the pocket scenes.
        shard: (number, count): only that part of the images, number from 1; None: all.

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

    def __post_init__(self) -> None:
        if not self.methods:
            raise IavaError("no method is named: use a list such as greedy,apc,bias,iava")
        for name in ("max_new_tokens", "tune_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise IavaError(f"{name} is {value}: it must be at least 1")
        self.asked.parser_name(self.parser)
        if "bias" in self.methods and not self.asked.asks_yes_no:
            raise IavaError(f"bias moves yes against no, and {self.benchmark} asks for neither: leave it out")
        if self.fitted and set(self.methods) == {"bias"}:
            raise IavaError("bias is fitted to the yes-rate of another method: name one, such as greedy,bias,iava")

    @cached_property
    def asked(self) -> Benchmark:
        """The benchmark.

        Raises:
            IavaError: if there is none of this name.
        """
        return benchmark(self.benchmark)

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
        """All questions, before limit and shard.

        Raises:
            IavaError: if they cannot be found or are broken.
        """
        return find(self.benchmark, self.data, self.split)

    @cached_property
    def task(self) -> Task:
        """The questions that are asked.

        Raises:
            IavaError: as `questions`, and if limit or shard are out of range, or the oracle has no regions.
        """
        limited = first_groups(self.questions, self.limit)
        if "oracle" in self.methods and any(question.region is None for question in limited.questions):
            raise IavaError(f"oracle must know which region answers each question, and {self.benchmark} does not say")
        return shard(limited, *self.shard) if self.shard else limited

    @cached_property
    def tune(self) -> Task:
        """The questions that the constant bias is fitted on; the same for every shard."""
        task = find(self.benchmark, None, "tune") if self.data is None else self.questions
        return first_groups(replace(task, questions=[q for q in task.questions if q.is_yes_no]), self.tune_images)
