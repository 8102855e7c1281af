"""CHAIR: which of the objects that a caption names are not in the image?

Object Hallucination in Image Captioning (arXiv 1809.02156). A caption's words are mapped to COCO's 80 classes. A class
that is not among the image's objects is hallucinated. `iava.benchmarks.chair_words` reads captions; a score may differ
from the paper's script where their word lists differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks.benchmark import Benchmark, Predictions, needed, unopened
from iava.benchmarks.chair_words import class_of, mentions
from iava.benchmarks.sources.coco import Instances, read_instances
from iava.benchmarks.sources.files import files_of, folder_task, images_of, names_in
from iava.benchmarks.task import Question, Task
from iava.errors import IavaError
from iava.jsonfiles import Unique, entries, id_of, read_json, read_lines, text_of
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share
from iava.pocket.scenes import Scene
from iava.pocket.world import OBJECT_CLASSES
from iava.words import singular, tokens

PROMPT = "Please describe this image in detail."
POCKET_PROMPT = "Describe this image."


class CHAIR(Benchmark):
    """CHAIR on those images of COCO's val2014 that are there."""

    source = "instances_val2014.json, captions_val2014.json of cocodataset.org and images/ with its val2014"
    max_new_tokens = 64
    has_pocket = True
    score_files = ("instances", "captions")

    def load(self, folder: Path) -> Task:
        """Reads COCO's instances JSON, and its captions JSON if it is there: one description for each image.

        The truth is the list of the image's classes.
        """
        captions = sorted(folder.glob("captions*.json"))
        instances, images = files_of(folder, "instances*.json")[0], images_of(folder)
        annotated = read_instances(instances)
        objects = chair_objects(annotated, captions[0] if captions else None)
        there = names_in(images)
        located = [
            (str(instances), Question(image, (file,), "caption", PROMPT, sorted(objects[image])))
            for image, file in annotated.files.items()
            if file in there
        ]
        if not located:
            raise IavaError(f"{images} has none of the {len(annotated.files)} images of {instances}")
        return folder_task(self.name, "val", located, images, _read)

    def pocket(self, scenes: Sequence[Scene]) -> list[Question]:
        """A caption of each scene."""
        return [Question(scene.id, (scene.id,), "caption", POCKET_PROMPT, sorted(scene.names)) for scene in scenes]

    def read_pocket(self, text: str) -> list[str]:
        """The pocket world's things that a caption names, in its order, as often as it names them."""
        words = (singular(token, OBJECT_CLASSES) for token in tokens(text))
        return [word for word in words if word in OBJECT_CLASSES]

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall: CHAIRi, CHAIRs and recall."""

        def tally_records(records: Sequence[Record]) -> np.ndarray:
            return tally([record["parsed"] for record in records], [record["truth"] for record in records])

        return [Part("overall", lambda _: True, tally_records, rates, "chair_s")]

    def right(self, records: Sequence[Record]) -> float:
        """The share of captions without a wrong object."""
        return sum(set(record["parsed"]) <= set(record["truth"]) for record in records) / len(records)

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads JSON lines {image_id, caption}, with the files "instances" and, if it was given, "captions"."""
        instances = needed(self.name, files, "instances")
        objects = chair_objects(read_instances(instances), files.get("captions"))
        ids = Unique("image_id")
        questions, texts, places = [], [], []
        for where, row in read_lines(path):
            image = id_of(where, row, "image_id")
            ids.add(where, image)
            if image not in objects:
                raise IavaError(f"{where}: {instances} has no image {image}")
            questions.append(Question(image, (image,), "caption", PROMPT, sorted(objects[image])))
            texts.append(text_of(where, row, "caption"))
            places.append(where)
        return Predictions(Task(self.name, "val", questions, unopened, _read), texts, places)


def _read(_: Question, text: str) -> Any:
    return mentions(text)


def chair_objects(instances: Instances, captions: Path | None) -> dict[str, set[str]]:
    """Image id -> COCO classes in it: those annotated, and those that reference captions name.

    Args:
        captions: COCO's captions JSON: annotations {image_id, caption}. None: annotated objects only.

    Raises:
        IavaError: if a category is none of COCO's 80 classes, or the captions are broken.
    """
    objects: dict[str, set[str]] = {image: set() for image in instances.objects}
    for image, names in instances.objects.items():
        for name in names:
            known = class_of(name)
            if known is None:
                raise IavaError(f"{instances.path}: category {name!r} is none of COCO's 80 classes: CHAIR needs those")
            objects[image].add(known)
    if captions is not None:
        for where, row in entries(captions, read_json(captions), "annotations"):
            image = id_of(where, row, "image_id")
            if image in objects:
                objects[image].update(mentions(text_of(where, row, "caption")))
    return objects


def tally(said: Sequence[Sequence[str]], objects: Sequence[Sequence[str]]) -> np.ndarray:
    """What each caption adds to the sums from which `rates` computes the metrics.

    Args:
        said: the classes that each caption names, as often as it names them; see `mentions`.
        objects: the classes in its image, each once.

    Returns:
        (N, 6) float: captions, captions with a wrong mention, mentions, wrong mentions, objects, objects named.
    """
    rows = []
    for names, there in zip(said, objects, strict=True):
        wrong = sum(name not in there for name in names)
        rows.append((1, wrong > 0, len(names), wrong, len(there), len(set(there) & set(names))))
    return np.array(rows, dtype=float).reshape(-1, 6)


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """CHAIR's metrics as fractions of 1.

    Args:
        sums: (..., 6) sums of `tally`.

    Returns:
        chair_i: hallucinated mentions over all mentions. chair_s: captions with a hallucinated mention over all
        captions. recall: objects that were named over all objects. Each (...); 0 where there is nothing to divide by.
    """
    captions, guilty, mentioned, wrong, objects, named = np.moveaxis(sums, -1, 0)
    return {"chair_i": share(wrong, mentioned), "chair_s": share(guilty, captions), "recall": share(named, objects)}
