"""Asks a benchmark's questions by several methods, and keeps every answer.

A run is a folder. Killed at any moment and called again, it goes on where it was; its records are then those of a run
that nobody disturbed.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iava.bench.pope import PARSERS, Question, Task, pocket
from iava.bench.records import Record, Records, circumstances, fingerprint, open_run, write_json
from iava.bench.results import rows_of
from iava.lvlm import LVLM
from iava.methods.base import Method
from iava.methods.controls import yes_no_logits
from iava.methods.oracle import Oracle

Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how many questions are answered, how many there are."""


@dataclass(frozen=True)
class Plan:
    """What is measured and how.

    Args:
        model: the name under which the model was loaded.
        methods: command-line name -> parameters; in this order.
        split: of the pocket scenes.
        limit: the first so many images; None: all.
        seed: of methods that draw tokens, and of the intervals.
        max_new_tokens: the length of an answer.
        parser: of `PARSERS`.
        tune_images: images of the split "tune" on which the constant bias is fitted.

    Raises:
        ValueError: if something is out of range, or the constant bias has nothing to be fitted to.
    """

    model: str
    methods: Mapping[str, Mapping[str, Any]]
    split: str = "test"
    limit: int | None = None
    seed: int = 42
    max_new_tokens: int = 16
    parser: str = "word"
    tune_images: int = 100

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("no method is named: use a list such as greedy,apc,bias,iava")
        for name in ("max_new_tokens", "tune_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.parser not in PARSERS:
            raise ValueError(f"unknown parser {self.parser!r}: use one of {', '.join(PARSERS)}")
        if self.fitted and set(self.methods) == {"bias"}:
            raise ValueError("bias is fitted to the yes-rate of another method: name one, such as greedy,bias,iava")

    @property
    def fitted(self) -> bool:
        """Whether the constant bias is among the methods, and not given."""
        return "bias" in self.methods and "bias" not in self.methods["bias"]

    @property
    def like(self) -> str:
        """The method whose rate of yes the constant bias copies: IAVA, or the last one named."""
        return "iava" if "iava" in self.methods else [name for name in self.methods if name != "bias"][-1]


def evaluate(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Runs a plan, or what is left of it, and writes records, manifest and results to the folder.

    Returns:
        What results.json holds: "rows" (see `iava.bench.results.rows_of`) and "manifest".

    Raises:
        ValueError: if the folder cannot be used, or the plan names what does not exist.
    """
    task = pocket(plan.split, plan.limit)
    if "oracle" in plan.methods and any(question.region is None for question in task.questions):
        raise ValueError(f"oracle must know which region answers each question, and {task.benchmark} does not say")
    methods = {name: lvlm.method(name, **settings) for name, settings in plan.methods.items()}
    described = {name: method.settings() for name, method in methods.items()}
    if plan.fitted:
        described["bias"] = {"fitted_on": "tune", "images": plan.tune_images, "yes_ratio_of": plan.like}
    settings = {
        "benchmark": task.benchmark,
        "model": plan.model,
        "weights": fingerprint(lvlm.model),
        "split": plan.split,
        "limit": plan.limit,
        "methods": described,
        "seed": plan.seed,
        "max_new_tokens": plan.max_new_tokens,
        "parser": plan.parser,
    }
    about = circumstances(lvlm.model) | {"prompt": lvlm.prompt(task.questions[0].question)}
    manifest = open_run(folder, settings, about)
    if plan.fitted:
        bias = _bias_on_tune(lvlm, plan, methods, folder, advance)
        methods["bias"] = lvlm.method("bias", bias=bias)
        described["bias"] = {"bias": bias, **described["bias"]}
    records = Records(folder / "records.jsonl")
    ask_all(lvlm, task, list(methods.values()), records, plan, lambda *n: advance(f"{task.benchmark} {plan.split}", *n))
    results = {"rows": rows_of(records.rows, settings=described, seed=plan.seed), "manifest": manifest}
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
    done = {(record["id"], record["method"]) for record in records.rows}
    total = len(task.questions) * len(methods)
    advance(len(done), total)
    for image, questions in _by_image(task.questions):
        todo = [method for method in methods if any((question.id, method.name) not in done for question in questions)]
        if not todo:
            continue
        try:
            picture, error = task.open_image(image), None
            picture.load()
        except (OSError, ValueError) as reason:
            picture, error = None, str(reason)
        for method in todo:
            answers = (
                {question.question: _failed(error) for question in questions}
                if picture is None
                else _answers(lvlm, picture, image, questions, method, plan)
            )
            fresh = [
                {"id": q.id, "image": q.image, "split": task.split, "category": q.category, "method": method.name}
                | {"question": q.question, "truth": q.truth, **answers[q.question]}
                for q in questions
                if (q.id, method.name) not in done
            ]
            records.append(fresh)
            done.update((record["id"], record["method"]) for record in fresh)
            advance(len(done), total)


def _by_image(questions: Sequence[Question]) -> Iterator[tuple[str, list[Question]]]:
    for image, group in groupby(questions, key=lambda question: question.image):
        yield image, list(group)


def _answers(
    lvlm: LVLM, picture: Image.Image, image: str, questions: Sequence[Question], method: Method, plan: Plan
) -> dict[str, Record]:
    """What is recorded of the answer to each wording."""
    wordings = list(dict.fromkeys(question.question for question in questions))
    if isinstance(method, Oracle):
        method = method.told(picture, {question.question: question.region or () for question in questions})
    # Seeded by image, so that a resumed run draws what an undisturbed one draws, and no two images the same.
    seed = zlib.crc32(f"{plan.seed} {image}".encode())
    answers = lvlm.ask_many(picture, wordings, method=method, max_new_tokens=plan.max_new_tokens, seed=seed)
    logits = yes_no_logits(torch.stack([answer.logits for answer in answers]), lvlm.processor.tokenizer).tolist()
    return {
        wording: {
            "text": answer.text,
            "parsed": PARSERS[plan.parser](answer.text),
            "yes": yes,
            "no": no,
            "seconds": round(answer.seconds, 6),
        }
        for wording, answer, (yes, no) in zip(wordings, answers, logits, strict=True)
    }


def _failed(error: str | None) -> Record:
    return {"text": "", "parsed": None, "yes": None, "no": None, "seconds": 0.0, "error": error}


def _bias_on_tune(lvlm: LVLM, plan: Plan, methods: Mapping[str, Method], folder: Path, advance: Advance) -> float:
    """The bias with which greedy decoding says yes as often on the split "tune" as the method it is to copy."""
    task = pocket("tune", plan.tune_images)
    pair = {"greedy": lvlm.method("greedy"), plan.like: methods[plan.like]}
    records = Records(folder / "tune-records.jsonl")
    ask_all(lvlm, task, list(pair.values()), records, plan, lambda *n: advance("fitting the bias on tune", *n))
    answered = [record for record in records.rows if "error" not in record]
    yes = [record["parsed"] == "yes" for record in answered if record["method"] == plan.like]
    margins = [record["yes"] - record["no"] for record in answered if record["method"] == "greedy"]
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
