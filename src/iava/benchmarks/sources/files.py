"""Files of a data set in its folder: finding them, and tasks whose images lie in a folder."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from iava.benchmarks.task import Located, Question, Task, by_group
from iava.errors import IavaError
from iava.lvlm.images import read_image

_IMAGE_FOLDERS = ("images", "image", "train_images", "val2014")


def files_of(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, sorted.

    Raises:
        IavaError: if there are none.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise IavaError(f"{folder} has no file {pattern}")
    return files


def images_of(folder: Path) -> Path:
    """The subfolder that holds the images.

    Raises:
        IavaError: if there is none.
    """
    for name in _IMAGE_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    raise IavaError(f"{folder} has no folder of images: {', '.join(_IMAGE_FOLDERS)}")


def folder_task(
    benchmark: str,
    split: str,
    located: Located,
    images: Path,
    read: Callable[[Question, str], Any] | None = None,
) -> Task:
    """A task whose images are files of a folder.

    Raises:
        IavaError: if there are no questions, or images are missing.
    """
    if not located:
        raise IavaError(f"there are no questions of {benchmark} in it")
    check_images(((where, image) for where, question in located for image in question.images), images)
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
