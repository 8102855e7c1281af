"""Pictures whose things are known, and questions about these."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from iava.bench.coco import read_instances
from iava.bench.layouts import check_images
from iava.bench.pope import Region, wording
from iava.bench.task import Question, Task, first_images
from iava.images import read_image
from iava.pocket.scenes import IMAGES, load_scene

Things = Mapping[str, Region]


@dataclass(frozen=True)
class Pictures:
    """Pictures whose things are known.

    Args:
        task: a question about each kind of thing that is asked about, with its boxes as the region.
        things: image -> kind -> boxes, of everything that is annotated.
    """

    task: Task
    things: Mapping[str, Things]


def pocket_pictures(split: str, *, limit: int | None = None, per_image: int = 3, seed: int = 42) -> Pictures:
    """The pocket scenes.

    Raises:
        ValueError: if there is no such split, or the limit is below 1.
    """
    if split not in IMAGES:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(IMAGES)}")
    count = IMAGES[split] if limit is None else min(limit, IMAGES[split])
    scenes = {scene.id: scene for scene in (load_scene(split, index) for index in range(count))}
    things = {id: {name: tuple(scene.boxes(name)) for name in sorted(scene.names)} for id, scene in scenes.items()}
    return _pictures(f"pocket {split}", things, lambda id: scenes[id].render(), limit, per_image, seed)


def coco_pictures(
    instances: Path, images: Path, *, limit: int | None = None, per_image: int = 3, seed: int = 42
) -> Pictures:
    """Images with annotations as COCO has them: {images, categories, annotations with bbox [x, y, width, height]}.

    Raises:
        ValueError: if the file is broken or has no boxes, or one of the images is missing from the folder.
    """
    annotated = read_instances(instances)
    things = {image: kinds for image, kinds in annotated.boxes.items() if kinds}
    if not things:
        raise ValueError(f"{instances} has no boxes: its annotations must have 'bbox'")
    files = annotated.files

    def open_image(image: str) -> Image.Image:
        return read_image(images / files[image])

    found = _pictures(instances.name, things, open_image, limit, per_image, seed)
    check_images(((str(instances), files[image]) for image in found.task.images), images)
    return found


def _pictures(name: str, things: Mapping[str, Things], open_image: Any, *drawn: Any) -> Pictures:
    limit, per_image, seed = drawn
    if per_image < 1:
        raise ValueError(f"per_image is {per_image}: it must be at least 1")
    questions = []
    for image, kinds in things.items():
        chosen = random.Random(f"{seed} {image}").sample(sorted(kinds), min(per_image, len(kinds)))
        questions += [Question(f"{image}-{kind}", image, kind, wording(kind), "yes", kinds[kind]) for kind in chosen]
    return Pictures(first_images(Task("regions", name, questions, open_image), limit), things)
