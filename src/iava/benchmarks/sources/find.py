"""Data sets in a folder on disk: finding them, and saying where to get them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from iava.benchmarks.benchmark import Benchmark
from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.benchmarks.sources.files import MissingDataError
from iava.benchmarks.sources.pocket import pocket
from iava.benchmarks.task import Task
from iava.errors import IavaError
from iava.files import reading


@dataclass(frozen=True)
class Found:
    """What was found of a data set.

    Args:
        name: of `iava.benchmarks.registry.BENCHMARKS`.
        state: "ready", "missing" or "broken".
        detail: how much there is, where to get it, or what is wrong.
        questions, images: how many there are; 0 unless ready.
    """

    name: str
    state: str
    detail: str
    questions: int = 0
    images: int = 0


def find(asked: Benchmark, folder: Path | None, split: str | None) -> Task:
    """Reads a data set from the subfolder of its name, or from the folder itself, or takes its pocket version.

    Args:
        asked: the benchmark of the data set.
        folder: holds a folder for each data set, or is the data set's own; None: the pocket scenes.
        split: None: the one that is in the folder, or "test".

    Raises:
        IavaError: if the split is unknown, or the data set is missing or broken.
    """
    if folder is None:
        return pocket(asked, split or "test")
    own = folder / asked.name
    try:
        with reading(folder):
            if not _lacks(own):
                folder = own
            task = asked.load(folder)
    except MissingDataError as error:
        if folder == own:
            raise
        raise IavaError(f"there is no {asked.name} in {folder}: {_where_to_get(asked, own)} ({error})") from None
    if split not in (None, task.split):
        raise IavaError(f"unknown split {split!r}: {folder} has {task.split!r} only")
    return task


def check(folder: Path) -> list[Found]:
    """Looks for every data set in the subfolder of its name; if there is none, for one in the folder itself."""
    found = [_found(benchmark(name), folder / name) for name in BENCHMARKS]
    if any(one.state != "missing" for one in found):
        return found
    own = [_found(benchmark(name), folder) for name in BENCHMARKS]
    return [mine if mine.state == "ready" else one for mine, one in zip(own, found, strict=True)]


def _found(asked: Benchmark, folder: Path) -> Found:
    try:
        with reading(folder):
            if _lacks(folder):
                return Found(asked.name, "missing", _where_to_get(asked, folder))
            task = asked.load(folder)
    except IavaError as error:
        return Found(asked.name, "broken", str(error))
    kinds = Counter(question.category for question in task.questions)
    detail = f"{len(task.questions)} questions about {len(task.images)} images"
    if len(kinds) > 1:
        detail += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
    return Found(asked.name, "ready", detail, len(task.questions), len(task.images))


def _lacks(folder: Path) -> bool:
    return not folder.is_dir() or not any(folder.iterdir())


def _where_to_get(asked: Benchmark, folder: Path) -> str:
    places = [asked.source]
    if asked.hub:
        places.insert(0, f"the data set {asked.hub.names[0]} of the Hugging Face Hub")
    return f"put into {folder}: {', or '.join(places)}"
