"""The benchmarks' pocket versions: questions of their kind about the pocket scenes, with nothing to download."""

import re
from functools import cache

from PIL import Image

from iava.benchmarks.benchmark import Benchmark
from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.benchmarks.task import Question, Task, first_groups
from iava.errors import IavaError
from iava.pocket.scenes import IMAGES, Scene, load_scene


def pocket(one: str | Benchmark, split: str, limit: int | None = None) -> Task:
    """A benchmark about the pocket scenes. Images are drawn when they are needed.

    Args:
        one: a benchmark that has a pocket version, or its name: "pope", "mme" or "chair".
        split: "tune", "tune-heldout", "test", "test-heldout", or one with weak evidence such as "test-blur" (see
            `iava.pocket.scenes.load_scene`).
        limit: only the first so many images, with the questions they have without a limit. None: all.

    Raises:
        IavaError: if there is no such version or split, or the limit is below 1.
    """
    asked = benchmark(one) if isinstance(one, str) else one
    name = asked.name
    if not asked.has_pocket:
        others = ", ".join(other for other in BENCHMARKS if benchmark(other).has_pocket)
        raise IavaError(f"{name} has no pocket version: use {others}, or a folder of data")
    if split not in IMAGES:
        raise IavaError(f"unknown split {split!r}: use one of {', '.join(IMAGES)}")
    task = Task(name, split, _questions(name, split), open_scene, lambda _, text: asked.read_pocket(text))
    return first_groups(task, limit)


def open_scene(image: str) -> Image.Image:
    """Draws a pocket scene, given its image id such as "test-00007"."""
    split, _, index = image.rpartition("-")
    return load_scene(split, int(index)).render()


def is_scene(image: str) -> bool:
    """Whether an image id belongs to a pocket scene."""
    split, _, index = image.rpartition("-")
    return split in ("train", *IMAGES) and re.fullmatch(r"\d{5}", index) is not None


@cache
def _scenes(split: str) -> list[Scene]:
    return [load_scene(split, index) for index in range(IMAGES[split])]


@cache
def _questions(name: str, split: str) -> list[Question]:
    return benchmark(name).pocket(_scenes(split))
