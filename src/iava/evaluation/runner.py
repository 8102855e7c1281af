"""Asks a benchmark's questions by several methods, and keeps every answer.

A run is a folder. A run that was killed continues where it stopped; its records then equal those of an undisturbed run.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from iava.benchmarks.task import Question, Task, Unit
from iava.errors import IavaError
from iava.evaluation.bias import bias_of
from iava.evaluation.environment import environment, fingerprint
from iava.evaluation.lock import locked
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, check_unique, open_run, write_json
from iava.evaluation.verified import checked_caption
from iava.files import write_text
from iava.lvlm.answers import Answer
from iava.lvlm.boxes import token_boxes
from iava.lvlm.model import LVLM, out_of_memory
from iava.methods.base import Method
from iava.methods.oracle import Oracle
from iava.methods.verify import SelfChecked
from iava.methods.words import yes_no_logits
from iava.metrics.parts import Record
from iava.metrics.results import rows_of

Advance = Callable[[str, int, int], None]
"""Progress: what is being done, how many questions are answered, how many there are."""

Ask = Callable[[str, Mapping[str, Mapping[str, Any]], Records, Callable[[int, int], None]], None]
"""Asks a part of a plan ("task" or "tune") by methods (name -> parameters), keeps the answers, reports progress."""


def evaluate(
    lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None, *, others: Sequence[Method] = ()
) -> dict[str, Any]:
    """Runs a plan, or the rest of it, and writes records, manifest and results to the folder.

    Args:
        others: methods that have no command-line name. Their settings must describe them completely.

    Returns:
        The content of results.json: "rows" (see `iava.metrics.results.rows_of`), "methods" with their settings, and
        "manifest".

    Raises:
        IavaError: if the folder cannot be used, or the plan names something that does not exist.
    """

    def ask(part: str, methods: Mapping[str, Mapping[str, Any]], records: Records, report: Callable[..., None]) -> None:
        made = [lvlm.method(name, **settings) for name, settings in methods.items()]
        made += others if part == "task" else ()
        ask_all(lvlm, getattr(plan, part), made, records, plan, report)

    return evaluate_by(ask, describe(lvlm, plan, others), plan, folder, advance)


def describe(lvlm: LVLM, plan: Plan, others: Sequence[Method] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that a run must share with another to continue it, and what the manifest records beside them."""
    methods = {name: lvlm.method(name, **settings).settings() for name, settings in plan.methods.items()}
    methods |= {method.name: method.settings() for method in others}
    if plan.fitted:
        fit = {"fitted_on": plan.tune.split, "images": plan.tune_images, "yes_ratio_of": plan.bias_target}
        methods["bias"] = {name: value for name, value in methods["bias"].items() if name != "bias"} | fit
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
        "parser": plan.asked.parser_name(plan.parser),
        # None, as in the runs of a version that did not record it.
        "checkpoint_generation": lvlm.generation_notes or None,
        **plan.selection,
    }
    data = "pocket" if plan.data is None else str(plan.data.absolute())
    about = {
        "data": data,
        "prompt": lvlm.prompt(plan.task.questions[0].question, plan.system_prompt),
        "prompt_style": plan.style,
        "revision": lvlm.revision,
    }
    return settings, about | environment(lvlm.model)


def evaluate_by(
    ask: Ask, described: tuple[dict[str, Any], dict[str, Any]], plan: Plan, folder: Path, advance: Advance
) -> dict[str, Any]:
    """`evaluate` with a model that may be in other processes. `described` is the result of `describe` there."""
    settings, about = described
    with locked(folder):
        manifest = open_run(folder, settings, about)
        if plan.sample is not None:
            write_text(folder / "ids.txt", "".join(f"{group}\n" for group in plan.chosen.groups))
        methods, shown = dict(plan.methods), settings["methods"]
        if plan.fitted:
            bias = _bias_on_tune(ask, plan, folder, advance)
            methods["bias"] = {**methods["bias"], "bias": bias}
            shown = {**shown, "bias": {"bias": bias, **shown["bias"]}}
        records = _open_records(folder / "records.jsonl", plan)
        ask("task", methods, records, partial(advance, f"{plan.benchmark} {plan.task.split}"))
        rows = rows_of(records.rows, benchmark=plan.asked, settings=shown, seed=plan.seed)
        results = {"rows": rows, "methods": shown, "manifest": manifest}
        write_json(folder / "results.json", results)
    return results


def _open_records(path: Path, plan: Plan) -> Records:
    records = Records(path, plan.asked.is_record)
    check_unique(path, records.rows)
    return records


def ask_all(
    lvlm: LVLM,
    task: Task,
    methods: Sequence[Method],
    records: Records,
    plan: Plan,
    advance: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Asks every question by every method, except where there is a record already.

    The questions of a unit (see `Task.units`) are asked in one batch, equal ones once. A unit that lacks some records
    is asked as a whole again, because the batch that a question is in may change the last digits of its logits.
    """
    by_name = {method.name: method for method in methods}
    missing = Missing(task, list(by_name), records)
    advance(*missing.progress)
    for unit, names in missing.units():
        for answers in answer_unit(lvlm, task, unit, [by_name[name] for name in names], plan):
            missing.add(answers)
            advance(*missing.progress)


class Missing:
    """The records that a task's questions still lack.

    Args:
        task: the questions.
        methods: their names.
        records: grow by what is added.
    """

    def __init__(self, task: Task, methods: Sequence[str], records: Records) -> None:
        self._task, self._methods, self._records = task, methods, records
        self._done = {(record["id"], record["method"]) for record in records.rows}

    @property
    def progress(self) -> tuple[int, int]:
        """How many answers there are, and how many there will be in the end."""
        return len(self._done), len(self._task.questions) * len(self._methods)

    def units(self) -> Iterator[tuple[Unit, list[str]]]:
        """The units that lack some records, and the methods whose records they lack."""
        for unit, questions in self._task.units.items():
            names = [name for name in self._methods if any((q.id, name) not in self._done for q in questions)]
            if names:
                yield unit, names

    def add(self, answers: Sequence[Record]) -> None:
        """Records those of the answers that are missing."""
        fresh = [record for record in answers if (record["id"], record["method"]) not in self._done]
        self._records.append(fresh)
        self._done.update((record["id"], record["method"]) for record in fresh)


def answer_unit(lvlm: LVLM, task: Task, unit: Unit, methods: Sequence[Method], plan: Plan) -> Iterator[list[Record]]:
    """The records of all questions of a unit, a list for each method."""
    questions = task.units[unit]
    try:
        pictures, error = [_picture(task, image) for image in questions[0].images], None
    except (OSError, IavaError) as reason:
        pictures, error = [], str(reason) or type(reason).__name__
    for method in methods:
        if error is not None:
            answers = {question.id: _failed(question, error) for question in questions}
        else:
            answers = _answers(lvlm, pictures, questions, method, plan)
        yield [
            {"id": q.id, "image": q.image, "split": task.split, "category": q.category, "method": method.name}
            | {"question": q.question, "truth": q.truth, **q.extras, **answers[q.id]}
            for q in questions
        ]


def _picture(task: Task, image: str) -> Image.Image:
    picture = task.open_image(image)
    picture.load()
    return picture


def _answers(
    lvlm: LVLM, pictures: Sequence[Image.Image], questions: Sequence[Question], method: Method, plan: Plan
) -> dict[str, Record]:
    """The answer's part of each question's record, by the question's id.

    A question that cannot be asked is an error of its own. The others are then asked one by one.
    """
    try:
        return _batch(lvlm, pictures, questions, method, plan)
    except (IavaError, UnicodeError) as reason:
        if len({question.question for question in questions}) == 1:
            return {question.id: _failed(question, str(reason)) for question in questions}
    alike: dict[str, list[Question]] = {}
    for question in questions:
        alike.setdefault(question.question, []).append(question)
    return {
        name: answer for some in alike.values() for name, answer in _answers(lvlm, pictures, some, method, plan).items()
    }


def _batch(
    lvlm: LVLM, pictures: Sequence[Image.Image], questions: Sequence[Question], method: Method, plan: Plan
) -> dict[str, Record]:
    wordings = list(dict.fromkeys(question.question for question in questions))
    if isinstance(method, Oracle):
        boxes = partial(token_boxes, lvlm.model, lvlm.processor, pictures[0])
        method = method.with_regions(boxes, {question.question: question.region or () for question in questions})
    # Seeded by image: a continued run draws what an undisturbed one draws, and no two images draw the same.
    place = questions[0].image or questions[0].group
    seed = zlib.crc32(f"{plan.seed} {place}".encode("utf-8", "surrogatepass"))
    settings: dict[str, Any] = {"method": method, "max_new_tokens": plan.length, "seed": seed}
    try:
        if isinstance(method, SelfChecked):
            return {q.id: checked_caption(lvlm, pictures[0], q, method, plan, seed) for q in questions}
        if len(pictures) == 1:
            asked = wordings if plan.system_prompt is None else [_turns(plan, [], text) for text in wordings]
            answers = lvlm.ask_many(pictures[0], asked, **settings)
        else:
            shown = [{"type": "image"} for _ in pictures]
            turns = [_turns(plan, shown, text) for text in wordings]
            answers = lvlm.chat_many(turns, images=[pictures] * len(turns), **settings)
    except RuntimeError as reason:
        if not out_of_memory(reason):
            raise
        return {question.id: _failed(question, "out of memory, even for one question alone") for question in questions}
    said = dict(zip(wordings, answers, strict=True))
    logits: dict[str, list[float]] = {}
    if any(question.is_yes_no for question in questions):
        pairs = yes_no_logits(torch.stack([answer.logits for answer in answers]), lvlm.processor.tokenizer)
        logits = dict(zip(wordings, pairs.tolist(), strict=True))

    def outcome(question: Question) -> Record:
        text = said[question.question].text
        found = {"text": text, "parsed": plan.parse(question, text)}
        return found | dict(zip(("yes", "no"), logits[question.question], strict=True)) if question.is_yes_no else found

    def spent(answer: Answer) -> Record:
        share = {} if answer.selected is None else {"selected": round(answer.selected, 6)}
        return {**share, "seconds": round(answer.seconds, 6)}

    return {q.id: outcome(q) | spent(said[q.question]) for q in questions}


def _turns(plan: Plan, images: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """A question as messages, with the plan's system prompt."""
    system = [] if plan.system_prompt is None else [{"role": "system", "content": plan.system_prompt}]
    return [*system, {"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def _failed(question: Question, error: str) -> Record:
    logits = {"yes": None, "no": None} if question.is_yes_no else {}
    return {"text": "", "parsed": None, **logits, "seconds": 0.0, "error": error}


def _bias_on_tune(ask: Ask, plan: Plan, folder: Path, advance: Advance) -> float:
    """The bias with which greedy decoding says yes on `Plan.tune` as often as its target does."""
    records = _open_records(folder / "tune-records.jsonl", plan)
    pair = {"greedy": {}, plan.bias_target: plan.methods[plan.bias_target]}
    ask("tune", pair, records, partial(advance, "fitting the bias"))
    bias = bias_of(records.rows, plan.bias_target)
    if bias is None:
        raise IavaError(f"the bias cannot be fitted: none of the questions in {records.path} was answered")
    return bias
