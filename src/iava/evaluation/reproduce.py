"""The comparison of IAVA's paper (arXiv 2503.18556) with the controls that it lacks, as one run for each data set.

The paper compares regular decoding (sampling), VCD, M3ID, AvisC and IAVA. Each has its published settings for LLaVA-1.5
and InstructBLIP. The controls are greedy decoding, the plausibility constraint alone and a constant bias. All methods
but `sample` and `apc` take the best token: the paper does not say whether its contrasts sample.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iava.benchmarks.registry import benchmark
from iava.benchmarks.task import Task, first_groups
from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import Advance, ask_all, evaluate
from iava.files import reading
from iava.lvlm.model import LVLM
from iava.metrics.memory import peak, weights

TABLES = {"mme": ("mme",), "pope": ("pope", "pope-aokvqa", "pope-gqa"), "textvqa": ("textvqa",)}
"""The paper's tables -> the data sets in them."""
COMPARED: dict[str, dict[str, Any]] = {
    "sample": {},
    "greedy": {},
    "apc": {},
    "bias": {},
    "vcd": {},
    "m3id": {},
    "avisc": {},
    "iava": {"negative": "zeros"},
}
"""Methods -> published settings that are not their defaults. Methods know what differs between models."""
_SAMPLE_IMAGES = 3


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a data set.

    Args:
        benchmark: the data set.
        questions, images: their numbers.
        answers: questions times methods.
        seconds: for all of them, extrapolated from a few images.
        memory: peak bytes of tensors: the model, and what one image took.
    """

    benchmark: str
    questions: int
    images: int
    answers: int
    seconds: float
    memory: int


def plans(model: str, data: Path, tables: Sequence[str], *, limit: int | None, seed: int) -> list[Plan]:
    """A plan for each data set of the tables. Of several that make one table, those in the folder are taken.

    Args:
        model: the name under which the model is loaded.
        data: holds a folder for each data set.
        tables: of `TABLES`.
        limit: the first so many images of each; None: all, as the paper.
        seed: as in `Plan`.

    Raises:
        IavaError: if a table is unknown or named twice, or nothing of it is there.
    """
    if not tables or len(set(tables)) < len(tables) or set(tables) - set(TABLES):
        raise IavaError(f"tables is {','.join(tables)!r}: it must be a list of {', '.join(TABLES)}")
    found = []
    for table in tables:
        with reading(data):
            there = [name for name in TABLES[table] if (data / name).is_dir()]
        # If none is there, the message about the first one says where to get it.
        found += [_plan(model, data, name, limit, seed) for name in there or TABLES[table][:1]]
    for plan in found:
        plan.task  # noqa: B018 - missing or broken data is reported before anything starts
    return found


def _plan(model: str, data: Path, name: str, limit: int | None, seed: int) -> Plan:
    methods = {method: dict(settings) for method, settings in COMPARED.items()}
    if not benchmark(name).asks_yes_no:
        del methods["bias"]
    if name in TABLES["pope"]:
        # M3ID's paper counts POPE's question as forgotten already.
        methods["m3id"] = {"offset": 10}
    return Plan(model, methods, limit=limit, seed=seed, benchmark=name, data=data)


def reproduce(lvlm: LVLM, some: Sequence[Plan], folder: Path, advance: Advance = lambda *_: None) -> list[Path]:
    """Runs the plans, or the rest of them, one after the other, each in the folder of its data set's name.

    Returns:
        The runs' folders.

    Raises:
        IavaError: as `evaluate`.
    """
    for plan in some:
        evaluate(lvlm, plan, folder / plan.benchmark, advance)
    return [folder / plan.benchmark for plan in some]


def estimate(lvlm: LVLM, plan: Plan, advance: Advance = lambda *_: None) -> Estimate:
    """Asks about a few images by every method, and estimates the cost of all. Nothing is kept."""
    sample = first_groups(plan.task, _SAMPLE_IMAGES)
    device = next(lvlm.model.parameters()).device
    seconds, memory = {}, 0
    for number, (name, settings) in enumerate(plan.methods.items(), start=1):
        method = [lvlm.method(name, **settings)]
        with TemporaryDirectory() as folder:
            # The first image is asked twice, so that the cost of the first call does not count.
            once, all_of_them = Records(Path(folder) / "once"), Records(Path(folder) / "all")
            held, _ = peak(partial(ask_all, lvlm, first_groups(sample, 1), method, once, plan), device)
            start = time.perf_counter()
            ask_all(lvlm, sample, method, all_of_them, plan)
            seconds[name] = (time.perf_counter() - start) / _asked(sample)
        memory = max(memory, held)
        advance(f"measuring {plan.benchmark}", number, len(plan.methods))
    whole = _asked(plan.task) * sum(seconds.values())
    if plan.fitted:
        whole += _asked(plan.tune) * (seconds["greedy"] + seconds[plan.bias_target])
    questions, images = len(plan.task.questions), len(plan.task.images)
    answers = questions * len(plan.methods)
    return Estimate(plan.benchmark, questions, images, answers, whole, weights(lvlm.model) + memory)


def _asked(task: Task) -> int:
    """The number of different questions: equal questions about an image are asked once."""
    return len({(question.image, question.question) for question in task.questions})
