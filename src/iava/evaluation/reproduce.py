"""The comparison of IAVA's paper (arXiv 2503.18556) with the controls that it lacks, as one run for each data set.

The paper compares regular decoding, VCD, M3ID, AvisC and IAVA. Each has its published settings for LLaVA-1.5 and
InstructBLIP. All are measured in two decoding modes, each with controls of its own mode.
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
from iava.evaluation.presets import RUN, preset
from iava.evaluation.records import Records
from iava.evaluation.runner import Advance, ask_all, evaluate
from iava.files import reading
from iava.lvlm.model import LVLM
from iava.metrics.memory import peak, weights

TABLES = {"mme": ("mme",), "pope": ("pope", "pope-aokvqa", "pope-gqa"), "textvqa": ("textvqa",)}
"""The paper's tables -> the data sets in them."""
CONTROLS = {"sampling": ("sample", "apc"), "greedy": ("greedy", "bias")}
"""Decoding mode -> its controls."""
COMPARED: dict[str, dict[str, Any]] = {"vcd": {}, "m3id": {}, "avisc": {}, "iava": {"negative": "zeros"}}
"""Methods -> published settings that are not their defaults. Methods know what differs between models."""
PAPERS_MODE = (
    "The paper does not say how its table was decoded. It calls its baseline regular decoding, as VCD and AvisC do, "
    "whose code always draws at temperature 1: compare its table with the runs in sampling/."
)
_SAMPLE_IMAGES = 3


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a data set.

    Args:
        benchmark: the data set.
        mode: the decoding mode, of `CONTROLS`.
        questions, images: their numbers.
        answers: questions times methods.
        seconds: for all of them, extrapolated from a few images.
        memory: peak bytes of tensors: the model, and what one image took.
    """

    benchmark: str
    mode: str
    questions: int
    images: int
    answers: int
    seconds: float
    memory: int


def plans(
    model: str,
    data: Path,
    tables: Sequence[str],
    *,
    modes: Sequence[str] = tuple(CONTROLS),
    limit: int | None,
    seed: int,
    published: str | None = None,
) -> list[Plan]:
    """A plan for each decoding mode and data set of the tables. Of several that make one table, those in the folder.

    Args:
        model: the name under which the model is loaded.
        data: holds a folder for each data set.
        tables: of `TABLES`.
        modes: of `CONTROLS`.
        limit: the first so many images of each; None: all, as the paper.
        seed: as in `Plan`.
        published: the model's family, to take over the settings of the authors' commands. Prompt, token limit and
            parser are then those of AvisC's scripts, which compare most of these methods. None: defaults.

    Raises:
        IavaError: if a table is unknown or named twice, or nothing of it is there.
    """
    if not tables or len(set(tables)) < len(tables) or set(tables) - set(TABLES):
        raise IavaError(f"tables is {','.join(tables)!r}: it must be a list of {', '.join(TABLES)}")
    names: list[str] = []
    for table in tables:
        with reading(data):
            there = [name for name in TABLES[table] if (data / name).is_dir()]
        # If none is there, the message about the first one says where to get it.
        names += there or TABLES[table][:1]
    found = [_plan(model, data, name, mode, limit, seed, published) for mode in modes for name in names]
    for plan in found:
        plan.task  # noqa: B018 - missing or broken data is reported before anything starts
    return found


def _plan(model: str, data: Path, name: str, mode: str, limit: int | None, seed: int, published: str | None) -> Plan:
    methods: dict[str, dict[str, Any]] = {control: {} for control in CONTROLS[mode]}
    if not benchmark(name).asks_yes_no:
        methods.pop("bias", None)
    compared: dict[str, dict[str, Any]] = {method: dict(settings) for method, settings in COMPARED.items()}
    if name in TABLES["pope"]:
        # M3ID's paper counts POPE's question as forgotten already.
        compared["m3id"] = {"offset": 10}
    run: dict[str, Any] = {}
    if published is not None:
        scripts = preset("published", ["avisc"], published, name, {})
        run = {what: value for what in RUN if (value := getattr(scripts, what))}
        theirs = preset("published", list(compared), published, name, dict.fromkeys(RUN, ""))
        compared = {method: {**own, **theirs.settings[method]} for method, own in compared.items()}
    for settings in compared.values():
        settings.pop("sampling", None)
        if mode == "sampling":
            settings["sampling"] = True
    return Plan(model, methods | compared, limit=limit, seed=seed, benchmark=name, data=data, **run)


def mode_of(plan: Plan) -> str:
    """The decoding mode of a plan of `plans`."""
    return next(mode for mode, controls in CONTROLS.items() if controls[0] in plan.methods)


def reproduce(lvlm: LVLM, some: Sequence[Plan], folder: Path, advance: Advance = lambda *_: None) -> list[Path]:
    """Runs the plans, or the rest of them, one after the other, each in `folder`/mode/data set.

    Returns:
        The runs' folders.

    Raises:
        IavaError: as `evaluate`.
    """
    places = [folder / mode_of(plan) / plan.benchmark for plan in some]
    for plan, place in zip(some, places, strict=True):
        evaluate(lvlm, plan, place, advance)
    return places


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
            seconds[name] = (time.perf_counter() - start) / _count_questions(sample)
        memory = max(memory, held)
        advance(f"measuring {plan.benchmark}, {mode_of(plan)}", number, len(plan.methods))
    whole = _count_questions(plan.task) * sum(seconds.values())
    if plan.fitted:
        whole += _count_questions(plan.tune) * (seconds["greedy"] + seconds[plan.bias_target])
    questions, images = len(plan.task.questions), len(plan.task.images)
    answers = questions * len(plan.methods)
    return Estimate(plan.benchmark, mode_of(plan), questions, images, answers, whole, weights(lvlm.model) + memory)


def _count_questions(task: Task) -> int:
    """The number of different questions: equal questions about an image are asked once."""
    return len({(question.image, question.question) for question in task.questions})
