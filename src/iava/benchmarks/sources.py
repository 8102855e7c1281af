"""Benchmarks in a folder on disk: finding them, in whichever form they are there, and saying where to get them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from iava.benchmarks import hub, layouts
from iava.benchmarks.pocket import pocket
from iava.benchmarks.task import Task
from iava.errors import IavaError

_POPE = "the JSON lines of github.com/RUCAIBox/POPE and images/ with {}"
SOURCES = {
    "pope": ("pope", _POPE.format("those of COCO's val2014 that they name")),
    "pope-aokvqa": ("pope", _POPE.format("those of COCO's val2014 that they name")),
    "pope-gqa": ("pope", _POPE.format("those of GQA that they name")),
    "mme": ("mme", "the subtasks' folders of MME_Benchmark_release_version, which its authors give on request"),
    "textvqa": ("textvqa", "TextVQA_0.5.1_val.json and train_images/ of textvqa.org"),
    "chair": (
        "chair",
        "instances_val2014.json, captions_val2014.json of cocodataset.org and images/ with its val2014",
    ),
    "amber": ("amber", "data/ of github.com/junyangwang0410/AMBER and image/ with its images"),
}
"""Data set, which is also its folder's name -> benchmark, and what its authors publish."""
_IMAGE_FOLDERS = ("images", "image", "train_images", "val2014")


@dataclass(frozen=True)
class Found:
    """What was found of a data set.

    Args:
        name: of `SOURCES`.
        state: "ready", "missing" or "broken".
        detail: how much there is, where to get it, or what is wrong.
        questions, images: how many there are; 0 unless ready.
    """

    name: str
    state: str
    detail: str
    questions: int = 0
    images: int = 0


def load(name: str, folder: Path) -> Task:
    """Reads a data set, in hub format if there are parquet files, else as its authors publish it.

    Args:
        name: of `SOURCES`.
        folder: the data set's own.

    Raises:
        IavaError: if the name is unknown, the folder lacks something, or a file is broken.
    """
    if name not in SOURCES:
        raise IavaError(f"unknown data set {name!r}: use one of {', '.join(SOURCES)}")
    benchmark, _ = SOURCES[name]
    if benchmark in hub.NAMES and hub.parquet_files(benchmark, folder):
        return hub.read_hub(benchmark, folder)
    return _ORIGINAL[benchmark](folder)


def find(name: str, folder: Path | None, split: str | None) -> Task:
    """Reads a data set from the subfolder of its name, or takes its pocket version.

    Args:
        name: of `SOURCES`.
        folder: holds a folder for each data set; None: the pocket scenes.
        split: None: the one that is in the folder, or "test".

    Raises:
        IavaError: if the name or the split is unknown, or the data set is missing or broken.
    """
    if folder is None:
        return pocket(name, split or "test")
    if _lacks(folder / name):
        raise IavaError(f"there is no {name} in {folder}: {_where_to_get(name, folder / name)}")
    task = load(name, folder / name)
    if split not in (None, task.split):
        raise IavaError(f"unknown split {split!r}: {folder / name} has {task.split!r} only")
    return task


def check(folder: Path) -> list[Found]:
    """Looks for every data set in the subfolder of its name."""
    return [_found(name, folder / name) for name in SOURCES]


def _found(name: str, folder: Path) -> Found:
    if _lacks(folder):
        return Found(name, "missing", _where_to_get(name, folder))
    try:
        task = load(name, folder)
    except ValueError as error:
        return Found(name, "broken", str(error))
    images = len({question.image for question in task.questions})
    kinds = Counter(question.category for question in task.questions)
    detail = f"{len(task.questions)} questions about {images} images"
    if len(kinds) > 1:
        detail += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})"
    return Found(name, "ready", detail, len(task.questions), images)


def _lacks(folder: Path) -> bool:
    return not folder.is_dir() or not any(folder.iterdir())


def _where_to_get(name: str, folder: Path) -> str:
    places = [SOURCES[name][1]]
    if name in hub.NAMES:
        places.insert(0, f"the data set {hub.NAMES[name]} of the Hugging Face Hub")
    return f"put into {folder}: {', or '.join(places)}"


def _pope(folder: Path) -> Task:
    return layouts.read_pope(_files(folder, "*.json*"), _images(folder))


def _textvqa(folder: Path) -> Task:
    return layouts.read_textvqa(_files(folder, "*val*.json")[0], _images(folder))


def _chair(folder: Path) -> Task:
    captions = sorted(folder.glob("captions*.json"))
    return layouts.read_chair(_files(folder, "instances*.json")[0], _images(folder), captions[0] if captions else None)


def _amber(folder: Path) -> Task:
    queries = _files(folder, "data/query/query_all.json")[0]
    return layouts.read_amber(queries, _files(folder, "data/annotations.json")[0], _images(folder))


_ORIGINAL: dict[str, Callable[[Path], Task]] = {
    "pope": _pope,
    "mme": layouts.read_mme,
    "textvqa": _textvqa,
    "chair": _chair,
    "amber": _amber,
}


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise IavaError(f"{folder} has no file {pattern}")
    return files


def _images(folder: Path) -> Path:
    for name in _IMAGE_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    raise IavaError(f"{folder} has no folder of images: {', '.join(_IMAGE_FOLDERS)}")
