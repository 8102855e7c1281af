"""The comparison of IAVA's paper (arXiv 2503.18556), with the controls it lacks, as one run a data set.

Regular decoding (drawn), VCD, M3ID, AvisC and IAVA with their published settings for LLaVA-1.5 and InstructBLIP, beside
greedy decoding, the plausibility constraint alone and a constant bias. All but `sample` and `apc` take the best token:
whether the paper's contrasts draw, it does not say.
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
"""Methods -> what is published and not their default; what differs between models they know themselves."""
_SAMPLE_IMAGES = 3


@dataclass(frozen=True)
class Estimate:
    """What a data set is going to cost.

    Args:
        benchmark: the data set.
        questions, images: how many there are.
        answers: questions times methods.
        seconds: for all of it, by the time that a few images took.
        memory: bytes of tensors at once: the model, and what asking about one image held.
    """

    benchmark: str
    questions: int
    images: int
    answers: int
    seconds: float
    memory: int


def plans(model: str, data: Path, tables: Sequence[str], *, limit: int | None, seed: int) -> list[Plan]:
    """A plan for each data set of the tables; of those that make one table, the ones that are in the folder.

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
        # Where nothing is there, the first one says where to get it.
        found += [_plan(model, data, name, limit, seed) for name in there or TABLES[table][:1]]
    for plan in found:
        plan.task  # noqa: B018 - what is missing or broken is said before anything starts
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
    """Runs the plans one after the other, or what is left of them, each in the folder of its data set's name.

    Returns:
        The runs' folders.

    Raises:
        IavaError: as `evaluate`.
    """
    for plan in some:
        evaluate(lvlm, plan, folder / plan.benchmark, advance)
    return [folder / plan.benchmark for plan in some]


def estimate(lvlm: LVLM, plan: Plan, advance: Advance = lambda *_: None) -> Estimate:
    """Asks about a few images by every method, and says what all of them would take. Nothing is kept."""
    sample = first_groups(plan.task, _SAMPLE_IMAGES)
    device = next(lvlm.model.parameters()).device
    seconds, memory = {}, 0
    for number, (name, settings) in enumerate(plan.methods.items(), start=1):
        method = [lvlm.method(name, **settings)]
        with TemporaryDirectory() as folder:
            # The first image comes twice: what is slow only once must not count as speed.
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
    """How often something is asked: equal questions about an image are asked once."""
    return len({(question.image, question.question) for question in task.questions})
