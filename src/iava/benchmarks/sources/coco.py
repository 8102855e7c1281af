"""COCO's annotation files: the objects in each image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.jsonfiles import Unique, entries, id_of, read_json, text_of

CocoBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class Instances:
    """Annotated images, in the order of the file.

    Args:
        path: the file, for messages about it.
        files: image id -> file name.
        objects: image id -> names of the categories in it.
        boxes: image id -> category -> its boxes, (x0, y0, x1, y1) in pixels, as far as the file has them.
    """

    path: Path
    files: dict[str, str]
    objects: dict[str, set[str]]
    boxes: dict[str, dict[str, tuple[CocoBox, ...]]]


def read_instances(path: Path) -> Instances:
    """Reads an instances JSON: images {id, file_name}, categories {id, name}, annotations {image_id, category_id}.

    An annotation may have bbox [x, y, width, height].

    Raises:
        IavaError: if it is broken, an id stands twice, or an annotation names an image or a category that is missing;
            with file and entry.
    """
    content = read_json(path)
    files = dict(_named(path, content, "images", "file_name"))
    if not files:
        raise IavaError(f"{path}: 'images' is empty: there is nothing to ask about")
    categories = dict(_named(path, content, "categories", "name"))
    objects: dict[str, set[str]] = {image: set() for image in files}
    boxes: dict[str, dict[str, tuple[CocoBox, ...]]] = {image: {} for image in files}
    for where, row in entries(path, content, "annotations"):
        image, category = id_of(where, row, "image_id"), id_of(where, row, "category_id")
        if image not in objects:
            raise IavaError(f"{where}: there is no image {image} among 'images'")
        if category not in categories:
            raise IavaError(f"{where}: there is no category {category} among 'categories'")
        name = categories[category]
        objects[image].add(name)
        if "bbox" in row:
            boxes[image][name] = (*boxes[image].get(name, ()), _box(where, row["bbox"]))
    return Instances(path, files, objects, boxes)


def _box(where: str, box: Any) -> CocoBox:
    numbers = isinstance(box, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in box)
    if not numbers or len(box) != 4:
        raise IavaError(f"{where}: 'bbox' must be [x, y, width, height]")
    x, y, width, height = box
    return x, y, x + width, y + height


def _named(path: Path, content: Any, part: str, key: str) -> Iterator[tuple[str, str]]:
    ids = Unique("id")
    for where, row in entries(path, content, part):
        name = id_of(where, row, "id")
        ids.add(where, name)
        yield name, text_of(where, row, key)
