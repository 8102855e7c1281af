"""Asks a benchmark's questions by several methods, and keeps every answer.

A run is a folder. Killed at any moment and called again, it goes on where it was; its records are then those of a run
that nobody disturbed.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iava.benchmarks.registry import BENCHMARKS, benchmark, parser_of
from iava.benchmarks.sources import find
from iava.benchmarks.task import Question, Task, first_images, shard
from iava.errors import IavaError
from iava.evaluation.records import Record, Records, circumstances, fingerprint, open_run, write_json
from iava.lvlm.answers import Answer
from iava.lvlm.model import LVLM, out_of_memory
from iava.methods.base import Method
from iava.methods.oracle import Oracle
from iava.methods.words import yes_no_logits
from iava.metrics.results import rows_of

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many questions are answered, how many there are."""


@dataclass(frozen=True)
class Plan:
    """What is measured and how.

    Args:
        model: the name under which the model was loaded.
        methods: command-line name -> parameters; in this order.
        split: of the pocket scenes, or that of the data; None: "test", or the one there is.
        limit: the first so many images; None: all.
        seed: of methods that draw tokens, and of the intervals.
        max_new_tokens: the length of an answer; None: the benchmark's.
        parser: how yes and no are read, of the benchmark's parsers; None: its default.
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
        if self.benchmark not in BENCHMARKS:
            raise IavaError(f"unknown benchmark {self.benchmark!r}: use one of {', '.join(BENCHMARKS)}")
        if not self.methods:
            raise IavaError("no method is named: use a list such as greedy,apc,bias,iava")
        for name in ("max_new_tokens", "tune_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise IavaError(f"{name} is {value}: it must be at least 1")
        if parser_of(self.benchmark, self.parser) is None and "bias" in self.methods:
            raise IavaError(f"bias moves yes against no, and {self.benchmark} asks for neither: leave it out")
        if self.fitted and set(self.methods) == {"bias"}:
            raise IavaError("bias is fitted to the yes-rate of another method: name one, such as greedy,bias,iava")

    @property
    def fitted(self) -> bool:
        """Whether the constant bias is among the methods, and not given."""
        return "bias" in self.methods and "bias" not in self.methods["bias"]

    @property
    def like(self) -> str:
        """The method whose rate of yes the constant bias copies: IAVA, or the last one named."""
        return "iava" if "iava" in self.methods else [name for name in self.methods if name != "bias"][-1]

    @property
    def length(self) -> int:
        """The most tokens of an answer."""
        return self.max_new_tokens or BENCHMARKS[self.benchmark].max_new_tokens

    def parse(self, text: str) -> str | None:
        """Reads yes or no from an answer."""
        name = parser_of(self.benchmark, self.parser)
        assert name is not None
        return BENCHMARKS[self.benchmark].parsers[name](text)

    @cached_property
    def questions(self) -> Task:
        """All there are, before limit and shard.

        Raises:
            IavaError: if they cannot be found or are broken.
        """
        return find(self.benchmark, self.data, self.split)

    @cached_property
    def task(self) -> Task:
        """What is asked.

        Raises:
            IavaError: as `questions`, and if limit or shard are out of range, or the oracle has no regions.
        """
        limited = first_images(self.questions, self.limit)
        if "oracle" in self.methods and any(question.region is None for question in limited.questions):
            raise IavaError(f"oracle must know which region answers each question, and {self.benchmark} does not say")
        return shard(limited, *self.shard) if self.shard else limited

    @cached_property
    def tune(self) -> Task:
        """What the constant bias is fitted on; the same for every shard."""
        task = find(self.benchmark, None, "tune") if self.data is None else self.questions
        return first_images(replace(task, questions=[q for q in task.questions if q.polar]), self.tune_images)


Ask = Callable[[str, Mapping[str, Mapping[str, Any]], Records, Callable[[int, int], None]], None]
"""Asks a part of a plan ("task" or "tune") by methods (name -> parameters), keeps the answers, tells of progress."""


def evaluate(
    lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None, *, others: Sequence[Method] = ()
) -> dict[str, Any]:
    """Runs a plan, or what is left of it, and writes records, manifest and results to the folder.

    Args:
        others: methods beside those that the plan names; their settings must say all that matters.

    Returns:
        What results.json holds: "rows" (see `iava.metrics.results.rows_of`), "methods" with their settings, and
        "manifest".

    Raises:
        IavaError: if the folder cannot be used, or the plan names what does not exist.
    """

    def ask(part: str, methods: Mapping[str, Mapping[str, Any]], records: Records, told: Callable[..., None]) -> None:
        made = [lvlm.method(name, **settings) for name, settings in methods.items()]
        made += others if part == "task" else ()
        ask_all(lvlm, getattr(plan, part), made, records, plan, told)

    return evaluate_by(ask, describe(lvlm, plan, others), plan, folder, advance)


def describe(lvlm: LVLM, plan: Plan, others: Sequence[Method] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run of a plan must share with another to go on with it, and what is written beside it."""
    methods = {name: lvlm.method(name, **settings).settings() for name, settings in plan.methods.items()}
    methods |= {method.name: method.settings() for method in others}
    if plan.fitted:
        methods["bias"] = {"fitted_on": plan.tune.split, "images": plan.tune_images, "yes_ratio_of": plan.like}
    settings = {
        "benchmark": plan.benchmark,
        "questions": plan.questions.digest,
        "model": plan.model,
        "weights": fingerprint(lvlm.model),
        "split": plan.task.split,
        "limit": plan.limit,
        "shard": None if plan.shard is None else f"{plan.shard[0]}/{plan.shard[1]}",
        "methods": methods,
        "seed": plan.seed,
        "max_new_tokens": plan.length,
        "parser": parser_of(plan.benchmark, plan.parser),
    }
    data = "pocket" if plan.data is None else str(plan.data.absolute())
    prompt = lvlm.prompt(plan.task.questions[0].question)
    return settings, {"data": data, "prompt": prompt, "revision": lvlm.revision, **circumstances(lvlm.model)}


def evaluate_by(
    ask: Ask, described: tuple[dict[str, Any], dict[str, Any]], plan: Plan, folder: Path, advance: Advance
) -> dict[str, Any]:
    """`evaluate`, wherever the model is: `described` is what `describe` says there."""
    settings, about = described
    manifest = open_run(folder, settings, about)
    methods, shown = dict(plan.methods), settings["methods"]
    if plan.fitted:
        bias = _bias_on_tune(ask, plan, folder, advance)
        methods["bias"] = {"bias": bias}
        shown = {**shown, "bias": {"bias": bias, **shown["bias"]}}
    records = Records(folder / "records.jsonl")
    ask("task", methods, records, partial(advance, f"{plan.benchmark} {plan.task.split}"))
    rows = rows_of(records.rows, benchmark=benchmark(plan.benchmark), settings=shown, seed=plan.seed)
    results = {"rows": rows, "methods": shown, "manifest": manifest}
    write_json(folder / "results.json", results)
    return results


def ask_all(
    lvlm: LVLM,
    task: Task,
    methods: Sequence[Method],
    records: Records,
    plan: Plan,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Asks every question by every method, except where there is a record already.

    The questions of an image are asked together, equal ones once. An image of which some records are missing is asked
    about as a whole again, because the company a question is asked in may change the last digits of its logits.
    """
    by_name = {method.name: method for method in methods}
    missing = Missing(task, list(by_name), records)
    advance(*missing.progress)
    for image, names in missing.images():
        for answers in answer_image(lvlm, task, image, [by_name[name] for name in names], plan):
            missing.add(answers)
            advance(*missing.progress)


class Missing:
    """What is missing of the records of a task's questions by some methods.

    Args:
        task: what is asked.
        methods: their names.
        records: grow by what is added.
    """

    def __init__(self, task: Task, methods: Sequence[str], records: Records) -> None:
        self._task, self._methods, self._records = task, methods, records
        self._done = {(record["id"], record["method"]) for record in records.rows}

    @property
    def progress(self) -> tuple[int, int]:
        """How many answers there are, and how many there will be."""
        return len(self._done), len(self._task.questions) * len(self._methods)

    def images(self) -> Iterator[tuple[str, list[str]]]:
        """The images of which some records are missing, and by which methods."""
        for image, questions in self._task.by_image.items():
            names = [name for name in self._methods if any((q.id, name) not in self._done for q in questions)]
            if names:
                yield image, names

    def add(self, answers: Sequence[Record]) -> None:
        """Records those of the answers that are missing."""
        fresh = [record for record in answers if (record["id"], record["method"]) not in self._done]
        self._records.append(fresh)
        self._done.update((record["id"], record["method"]) for record in fresh)


def answer_image(lvlm: LVLM, task: Task, image: str, methods: Sequence[Method], plan: Plan) -> Iterator[list[Record]]:
    """The records of all questions about an image, a list for each method."""
    questions = task.by_image[image]
    try:
        picture, error = task.open_image(image), ""
        picture.load()
    except (OSError, ValueError) as reason:
        picture, error = None, str(reason)
    for method in methods:
        if picture is None:
            answers = {question.id: _failed(question, error) for question in questions}
        else:
            answers = _answers(lvlm, task, picture, questions, method, plan)
        yield [
            {"id": q.id, "image": q.image, "split": task.split, "category": q.category, "method": method.name}
            | {"question": q.question, "truth": q.truth, **answers[q.id]}
            for q in questions
        ]


def _answers(
    lvlm: LVLM, task: Task, picture: Image.Image, questions: Sequence[Question], method: Method, plan: Plan
) -> dict[str, Record]:
    """What is recorded of the answer to each question about an image, by the question's id."""
    wordings = list(dict.fromkeys(question.question for question in questions))
    if isinstance(method, Oracle):
        method = method.told(picture, {question.question: question.region or () for question in questions})
    # Seeded by image, so that a resumed run draws what an undisturbed one draws, and no two images the same.
    seed = zlib.crc32(f"{plan.seed} {questions[0].image}".encode())
    try:
        answers = lvlm.ask_many(picture, wordings, method=method, max_new_tokens=plan.length, seed=seed)
    except RuntimeError as reason:
        if not out_of_memory(reason):
            raise
        return {question.id: _failed(question, "out of memory, even for one question alone") for question in questions}
    said = dict(zip(wordings, answers, strict=True))
    logits: dict[str, list[float]] = {}
    if any(question.polar for question in questions):
        pairs = yes_no_logits(torch.stack([answer.logits for answer in answers]), lvlm.processor.tokenizer)
        logits = dict(zip(wordings, pairs.tolist(), strict=True))

    def outcome(question: Question) -> Record:
        text = said[question.question].text
        if question.polar:
            yes, no = logits[question.question]
            return {"text": text, "parsed": plan.parse(text), "yes": yes, "no": no}
        assert task.read is not None
        return {"text": text, "parsed": task.read(question, text)}

    def spent(answer: Answer) -> Record:
        share = {} if answer.selected is None else {"selected": round(answer.selected, 6)}
        return {**share, "seconds": round(answer.seconds, 6)}

    return {q.id: outcome(q) | spent(said[q.question]) for q in questions}


def _failed(question: Question, error: str) -> Record:
    logits = {"yes": None, "no": None} if question.polar else {}
    return {"text": "", "parsed": None, **logits, "seconds": 0.0, "error": error}


def _bias_on_tune(ask: Ask, plan: Plan, folder: Path, advance: Advance) -> float:
    """The bias with which greedy decoding says yes as often on `Plan.tune` as the method it is to copy."""
    records = Records(folder / "tune-records.jsonl")
    pair = {"greedy": {}, plan.like: plan.methods[plan.like]}
    ask("tune", pair, records, partial(advance, "fitting the bias"))
    answered = [record for record in records.rows if "error" not in record]
    yes = [record["parsed"] == "yes" for record in answered if record["method"] == plan.like]
    margins = [record["yes"] - record["no"] for record in answered if record["method"] == "greedy"]
    if not yes or not margins:
        raise IavaError(f"the bias cannot be fitted: none of the questions in {records.path} was answered")
    return fit_bias(margins, sum(yes) / len(yes))


def fit_bias(margins: Sequence[float], yes_ratio: float) -> float:
    """The bias nearest to 0 with which the share of margins + bias above 0 comes closest to a wanted share.

    Args:
        margins: logit of yes minus logit of no, of each question.
        yes_ratio: the wanted share, 0 to 1.
    """
    values = np.unique(margins)
    thresholds = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [values[0] - 1, values[-1] + 1]])
    above = (np.asarray(margins)[None] > thresholds[:, None]).mean(axis=1)
    miss = np.abs(above - yes_ratio)
    nearest = np.flatnonzero(miss <= miss.min() + 1e-12)
    return -float(min(thresholds[nearest], key=abs))
