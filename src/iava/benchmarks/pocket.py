"""The benchmarks' pocket versions: questions of their kind about the pocket scenes, with nothing to download.

pope: built as POPE is (see `iava.benchmarks.pope.build`). mme: pairs as MME has them, of its subtasks existence, count,
position and color, where a scene has something to ask about. chair: a caption, checked against the scene's things.
"""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from PIL import Image

from iava.benchmarks.pope import Region, build, wording
from iava.benchmarks.task import Question, Task, first_images
from iava.errors import IavaError
from iava.pocket.scenes import COLOURS, IMAGES, SPLITS, THINGS, Scene, load_scene
from iava.pocket.text import colour_question, count_question, painted, position_question, positions
from iava.words import singular, tokens

CAPTION_PROMPT = "Describe this image."
_SEED = 0


def pocket(benchmark: str, split: str, limit: int | None = None) -> Task:
    """A benchmark about the pocket scenes; pictures are drawn when they are needed.

    Args:
        benchmark: "pope", "mme" or "chair".
        split: "tune", "tune-heldout", "test" or "test-heldout".
        limit: only the first so many images, with the questions they have without a limit. None: all.

    Raises:
        IavaError: if there is no such version or split, or the limit is below 1.
    """
    if benchmark not in _QUESTIONS:
        raise IavaError(f"{benchmark} has no pocket version: use {', '.join(_QUESTIONS)}, or a folder of data")
    if split not in IMAGES:
        raise IavaError(f"unknown split {split!r}: use one of {', '.join(IMAGES)}")
    read = (lambda _, text: things_named(text)) if benchmark == "chair" else None
    return first_images(Task(benchmark, split, _questions(benchmark, split), open_scene, read), limit)


def open_scene(image: str) -> Image.Image:
    """Draws a pocket scene, given its image id such as "test-00007"."""
    split, _, index = image.rpartition("-")
    return load_scene(split, int(index)).render()


def is_scene(image: str) -> bool:
    """Whether an image id belongs to a pocket scene."""
    split, _, index = image.rpartition("-")
    return split in SPLITS and re.fullmatch(r"\d{5}", index) is not None


def example_images(count: int) -> list[Image.Image]:
    """The first scenes of the split "test"."""
    return [load_scene("test", index).render() for index in range(count)]


def things_named(caption: str) -> list[str]:
    """The pocket world's things that a caption names, in its order, as often as it names them."""
    words = (singular(token, THINGS) for token in tokens(caption))
    return [word for word in words if word in THINGS]


@cache
def _scenes(split: str) -> list[Scene]:
    return [load_scene(split, index) for index in range(IMAGES[split])]


@cache
def _questions(benchmark: str, split: str) -> list[Question]:
    return _QUESTIONS[benchmark](_scenes(split))


def _pope(scenes: list[Scene]) -> list[Question]:
    by_id = {scene.id: scene for scene in scenes}
    names = {scene.id: scene.names for scene in scenes}
    return build(names, seed=_SEED, region=lambda image, kind: fair_region(by_id[image], kind))


def fair_region(scene: Scene, kind: str) -> Region:
    """The boxes of a kind; where it is absent, those of a present one, drawn at random but always the same.

    No box for what is absent would tell the answer.
    """
    drawn = random.Random(f"{scene.id} {kind}").choice(sorted(scene.names))
    return tuple(scene.boxes(kind if kind in scene.names else drawn))


def _mme(scenes: list[Scene]) -> list[Question]:
    return [
        Question(f"{scene.id}-{subtask}-{number}", scene.id, subtask, question, truth)
        for scene in scenes
        for subtask, *pair in _pairs(scene, np.random.default_rng([_SEED, scene.index]))
        for number, (question, truth) in enumerate(zip(pair, ("yes", "no"), strict=True), start=1)
    ]


def _pairs(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """MME's subtasks, each with a question that is true of the scene and one that is not."""
    present, absent = sorted(scene.names), [name for name in THINGS if name not in scene.names]
    yield "existence", wording(str(rng.choice(present))), wording(str(rng.choice(absent)))
    name = str(rng.choice(present))
    number = scene.counts[name]
    wrong = int(rng.choice([n for n in (1, 2, 3) if n != number]))
    yield "count", count_question(name, number), count_question(name, wrong)
    apart = positions(scene, scene.names, rng)
    if apart:
        (a, b), asked, answer = apart[0].objects, apart[0].question, apart[0].answer
        other = next(q for side in ("left", "right") if (q := position_question(a, side, b)) != asked)
        yield ("position", asked, other) if answer == "Yes." else ("position", other, asked)
    coloured = painted(scene, scene.names)
    if coloured:
        thing = coloured[int(rng.integers(len(coloured)))]
        colour = str(rng.choice([colour for colour in COLOURS if colour != thing.colour]))
        yield "color", colour_question(thing.name, thing.colour), colour_question(thing.name, colour)


def _chair(scenes: list[Scene]) -> list[Question]:
    return [Question(scene.id, scene.id, "caption", CAPTION_PROMPT, sorted(scene.names)) for scene in scenes]


_QUESTIONS: dict[str, Callable[[list[Scene]], list[Question]]] = {"pope": _pope, "mme": _mme, "chair": _chair}
