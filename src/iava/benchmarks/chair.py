"""CHAIR: which of the objects that a caption names are not in the image?

Object Hallucination in Image Captioning (arXiv 1809.02156). A caption's words are mapped to COCO's 80 classes. A class
that is not among the image's objects is hallucinated. `iava.benchmarks.chair_words` has the words.

The papers use the list of synonyms and the NLTK lemmas of one script (OPERA's chair.py). With both options the classes
of a caption equal that script's: on 24,500 captions of nine models, no caption differs. Our own words differ in 13 % of
them; in 6 % another set of classes is named. Most of these are "men" and "women", which NLTK does not turn into "man"
and "woman". The papers also let captions grow to 512 tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks import nltk_words
from iava.benchmarks.benchmark import CAPTION_GENERAL, Benchmark, Predictions, is_texts, needed, unopened
from iava.benchmarks.chair_words import own_vocabulary, read_synonyms
from iava.benchmarks.sources.coco import Instances, read_instances
from iava.benchmarks.sources.files import folder_task, found, image_folder, names_in, search
from iava.benchmarks.sources.ids import plain_id
from iava.benchmarks.task import Question, Task
from iava.errors import IavaError
from iava.jsonfiles import Unique, entries, id_of, read_json, read_lines, text_of
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share
from iava.pocket.scenes import Scene
from iava.pocket.world import OBJECT_CLASSES
from iava.words import singular, tokens

CAPTION_PROMPT = "Please describe this image in detail."
PAI_PROMPT = "Please help me describe the image in detail."
"""The prompt of PAI's chair_eval.py."""
POCKET_PROMPT = "Describe this image."


class CHAIR(Benchmark):
    """CHAIR on those images of COCO's val2014 that are there.

    Args:
        synonyms: a list of synonyms; see `read_synonyms`. None: our own.
        lemmatizer: "nltk"; None: our own rules for plurals.

    Raises:
        IavaError: if the file is no list of synonyms, or there is no such lemmatizer.
    """

    source = "instances_val2014.json, captions_val2014.json of cocodataset.org and images/ with its val2014"
    max_new_tokens = 64
    has_pocket = True
    names_things = True
    score_files = ("instances", "captions")

    def __init__(self, name: str, synonyms: Path | None = None, lemmatizer: str | None = None) -> None:
        super().__init__(name)
        if lemmatizer not in (None, "nltk"):
            raise IavaError(f"unknown lemmatizer {lemmatizer!r}: use nltk, or leave the option out")
        self._synonyms, self._lemmatizer = synonyms, lemmatizer
        self._vocabulary = own_vocabulary() if synonyms is None else read_synonyms(synonyms)

    def settings(self) -> dict[str, Any]:
        """The list of synonyms by name and digest, and the lemmatizer."""
        found = {} if self._lemmatizer is None else {"lemmatizer": self._lemmatizer}
        if self._synonyms is not None:
            digest = hashlib.sha256(self._synonyms.read_bytes()).hexdigest()[:12]
            found["synonyms"] = f"{self._synonyms.name} {digest}"
        return found

    def prompt(self, question: Question, style: str) -> str:
        """PAI's wording in the style "pai"; in all others the question."""
        return PAI_PROMPT if style == "pai" else question.question

    def general(self, category: str | None) -> str:
        """That of captions."""
        return CAPTION_GENERAL

    def mentions(self, caption: str) -> list[str]:
        """The classes that a caption names, in its order, as often as it names them.

        Raises:
            IavaError: if the lemmatizer lacks something.
        """
        lemmas = nltk_words.lemmas if self._lemmatizer else self._vocabulary.lemmas
        return self._vocabulary.mentions(lemmas(caption))

    def _read(self, _: Question, text: str) -> list[str]:
        return self.mentions(text)

    def objects(self, instances: Instances, captions: Path | None) -> dict[str, set[str]]:
        """Image id -> COCO classes in it: those annotated, and those that reference captions name.

        Args:
            captions: COCO's captions JSON: annotations {image_id, caption}. None: annotated objects only.

        Raises:
            IavaError: if a category is none of COCO's 80 classes, or the captions are broken.
        """
        objects: dict[str, set[str]] = {image: set() for image in instances.objects}
        for image, names in instances.objects.items():
            for name in names:
                known = self._vocabulary.class_of(name)
                if known is None:
                    raise IavaError(
                        f"{instances.path}: category {name!r} is none of COCO's 80 classes: CHAIR needs those"
                    )
                objects[image].add(known)
        if captions is not None:
            for where, row in entries(captions, read_json(captions), "annotations"):
                image = id_of(where, row, "image_id")
                if image in objects:
                    objects[image].update(self.mentions(text_of(where, row, "caption")))
        return objects

    def load(self, folder: Path) -> Task:
        """Reads COCO's instances JSON, and its captions JSON if it is there: one description for each image.

        The truth is the list of the image's classes.
        """
        instances = found(folder, "instances_val2014.json", "instances*val*.json", "instances*.json")[0]
        captions = search(instances.parent, instances.name.replace("instances", "captions"), "captions*.json")
        annotated = read_instances(instances)
        images = image_folder(folder, list(annotated.files.values()))
        objects = self.objects(annotated, captions[0] if captions else None)
        there = names_in(images)
        located = [
            (str(instances), Question(image, (file,), "caption", CAPTION_PROMPT, sorted(objects[image])))
            for image, file in annotated.files.items()
            if file in there
        ]
        if not located:
            raise IavaError(f"{images} has none of the {len(annotated.files)} images of {instances}")
        return folder_task(self.name, "val", located, images, self._read)

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

    def is_answer(self, row: Record) -> bool:
        """The truth and the parsed answer are lists of classes."""
        return is_texts(row["truth"]) and is_texts(row.get("parsed"))

    def right(self, records: Sequence[Record]) -> float:
        """The share of captions without a wrong object."""
        return sum(set(record["parsed"]) <= set(record["truth"]) for record in records) / len(records)

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads JSON lines {image_id, caption}, with the files "instances" and, if it was given, "captions"."""
        instances = needed(self.name, files, "instances")
        objects = self.objects(read_instances(instances), files.get("captions"))
        ids = Unique("image_id")
        questions, texts, places = [], [], []
        for where, row in read_lines(path):
            image = plain_id(id_of(where, row, "image_id"))
            ids.add(where, image)
            if image not in objects:
                raise IavaError(f"{where}: {instances} has no image {image}")
            questions.append(Question(image, (image,), "caption", CAPTION_PROMPT, sorted(objects[image])))
            texts.append(text_of(where, row, "caption"))
            places.append(where)
        return Predictions(Task(self.name, "val", questions, unopened, self._read), texts, places)


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
