"""Files of a data set in its folder: finding them, and tasks whose images lie in a folder."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from iava.benchmarks.task import Located, Question, Task, by_group
from iava.errors import IavaError
from iava.lvlm.images import read_image

_DEPTH = 3
"""Folders below a data set's own in which its files are searched."""
_SHARED = "val2014"
"""COCO's images, which several data sets share. They may lie beside a data set's folder."""
_IMAGE_FOLDERS = ("images", "image", "train_images", "val2014")


class MissingDataError(IavaError):
    """A folder holds nothing of a data set."""


def search(folder: Path, *patterns: str) -> list[Path]:
    """The files in or below a folder that match the first pattern that any file matches: those of one folder, sorted.

    A file that lies less deep is preferred.
    """
    for pattern in patterns:
        for depth in range(_DEPTH + 1):
            files = sorted(path for path in folder.glob("*/" * depth + pattern) if path.is_file())
            if files:
                return [file for file in files if file.parent == files[0].parent]
    return []


def found(folder: Path, *patterns: str) -> list[Path]:
    """As `search`.

    Raises:
        MissingDataError: if no file matches.
    """
    files = search(folder, *patterns)
    if not files:
        raise MissingDataError(f"{folder} has no file {patterns[0]}")
    return files


def folders_below(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """A folder and those below it, the less deep ones first."""
    level = [folder]
    for _ in range(depth + 1):
        yield from level
        level = [path for one in level for path in _subfolders(one)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def image_folder(folder: Path, images: Sequence[str]) -> Path:
    """The folder that holds the images: the data set's own, one below it, or COCO's beside it.

    Args:
        images: file names. The folder that holds one of the first is taken.

    Raises:
        IavaError: if there is no folder for images.
    """
    few = images[:20]
    beside = (path / _SHARED for path in folders_below(folder.parent, 1))
    for candidate in chain(folders_below(folder), beside):
        if any((candidate / image).is_file() for image in few):
            return candidate
    for name in _IMAGE_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    raise IavaError(f"{folder} has no folder of images: {', '.join(_IMAGE_FOLDERS)}")


def folder_task(
    benchmark: str,
    split: str,
    located: Located,
    folder: Path,
    read: Callable[[Question, str], Any] | None = None,
) -> Task:
    """A task whose images are files.

    Args:
        folder: of the data set; see `image_folder`.

    Raises:
        IavaError: if there are no questions, or images are missing.
    """
    if not located:
        raise IavaError(f"there are no questions of {benchmark} in {folder}")
    named = [(where, image) for where, question in located for image in question.images]
    images = image_folder(folder, [image for _, image in named])
    check_images(named, images)
    questions = by_group([question for _, question in located])
    return Task(benchmark, split, questions, lambda image: read_image(images / image), read)


def check_images(located: Iterable[tuple[str, str]], folder: Path) -> None:
    """Checks that images are in a folder.

    Args:
        located: where an image is named, for the message, and its file name, which may have folders in it.

    Raises:
        IavaError: if some are missing. The message says which is the first, where it is named, and how many there are.
    """
    there: dict[Path, set[str]] = {}
    wanted: dict[str, str] = {}
    for where, image in located:
        wanted.setdefault(image, where)
    missing = []
    for image in wanted:
        path = folder / image
        if path.name not in there.setdefault(path.parent, names_in(path.parent)):
            missing.append(image)
    if missing:
        more = f" ({len(missing)} of {len(wanted)} images are)" if len(missing) > 1 else ""
        raise IavaError(f"{wanted[missing[0]]}: the image {missing[0]} is missing from {folder}{more}")


def names_in(folder: Path) -> set[str]:
    """The names of a folder's entries; none if it does not exist."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
