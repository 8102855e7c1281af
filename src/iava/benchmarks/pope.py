"""POPE: is there such an object in the image?

Evaluating Object Hallucination in Large Vision-Language Models (arXiv 2305.10355). Half of the questions ask about
objects that are there. The other half ask about objects that are not, which were chosen in three ways: at random, by
their frequency, or by how often they appear together with the image's own objects.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks import yes_no
from iava.benchmarks.benchmark import Benchmark, Hub, Predictions, unopened
from iava.benchmarks.parsers import YES_NO
from iava.benchmarks.pope_answers import CATEGORIES, read_answers
from iava.benchmarks.sources.coco import read_instances
from iava.benchmarks.sources.files import MissingDataError, check_images, folder_task, search
from iava.benchmarks.sources.hub import parquet_files, parquet_task
from iava.benchmarks.task import Located, Question, Region, Task, with_unique_ids
from iava.errors import IavaError
from iava.jsonfiles import id_of, read_lines, text_of, words_of, yes_or_no
from iava.metrics.parts import Part
from iava.pocket.scenes import Scene
from iava.words import with_article

_IMAGES = {"pope-gqa": "those of GQA that they name"}
_MARKS = {"pope": "coco_pope", "pope-aokvqa": "aokvqa_pope", "pope-gqa": "gqa_pope", "repope": "repope"}
"""Data set -> part of the names of its files."""
_NO_QUESTIONS = ("instances_", "captions_", "person_keypoints_")
_SAMPLING_SEED = 0


class POPE(Benchmark):
    """POPE's three data sets: "pope" (COCO), "pope-aokvqa" and "pope-gqa"; and "repope".

    RePOPE (arXiv 2504.15707) corrects the labels of the first and leaves ambiguous questions out.
    """

    asks_yes_no = True
    parsers = YES_NO
    score_files = ("questions",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        images = _IMAGES.get(name, "those of COCO's val2014 that they name")
        origin = "annotations/ of github.com/YanNeu/RePOPE" if name == "repope" else "github.com/RUCAIBox/POPE"
        self.source = f"the JSON files of {origin} and images/ with {images}"
        self.has_pocket = name == "pope"
        if name == "pope":
            columns = ("question_id", "question", "answer", "image_source", "category")
            self.hub = Hub(("lmms-lab/POPE", "lmms-lab-encoder/POPE"), "test", columns)

    def load(self, folder: Path) -> Task:
        """Reads parquet files, or JSON {question_id, image, text, label}, one object a line or an array.

        The objects name their "category", unless their file is named after it, such as coco_pope_random.json. Other
        JSON files beside them are left alone.
        """
        if self.hub and (parquets := parquet_files(folder, self.hub.split)):
            return parquet_task(self.name, self.hub.split, parquets, self.hub.columns, _pope_question, with_unique_ids)
        located: Located = []
        for file in self._files(folder):
            of_file = [name for name in CATEGORIES if name in file.stem.lower()]
            for where, row in read_lines(file):
                if "category" not in row and len(of_file) != 1:
                    raise IavaError(f"{where}: 'category' is missing, and the file's name does not say it")
                category = text_of(where, row, "category") if "category" in row else of_file[0]
                image, truth = text_of(where, row, "image"), yes_or_no(where, row, "label")
                name = f"{category}-{id_of(where, row, 'question_id')}"
                located.append((where, Question(name, (image,), category, words_of(where, row, "text"), truth)))
        return folder_task(self.name, "test", with_unique_ids(located), folder)

    def _files(self, folder: Path) -> list[Path]:
        """The files of this data set: named after it and a category, or after a category, or any that is left."""
        own = _MARKS[self.name]
        others = [mark for mark in _MARKS.values() if mark != own]
        there = search(folder, f"*{own}*.json*", "*pope*.json*", "*.json*")
        files = [
            file
            for file in there
            if file.suffix in (".json", ".jsonl")
            and not file.name.startswith(_NO_QUESTIONS)
            and not any(mark in file.name for mark in others)
        ]
        if not files:
            raise MissingDataError(f"{folder} has no file with questions of {self.name}, such as {own}_random.json")
        named = [file for file in files if any(name in file.stem.lower() for name in CATEGORIES)]
        return named or files

    def pocket(self, scenes: Sequence[Scene]) -> list[Question]:
        """POPE's three samplings over the scenes' objects; see `build_questions`."""
        by_id = {scene.id: scene for scene in scenes}
        names = {scene.id: scene.names for scene in scenes}
        return build_questions(names, seed=_SAMPLING_SEED, region=lambda image, kind: fair_region(by_id[image], kind))

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall, and a row for each category."""
        known = [name for name in CATEGORIES if name in categories]
        others = [name for name in categories if name not in known]
        return [yes_no.part("overall", lambda _: True), *(yes_no.part(name, name.__eq__) for name in known + others)]

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads the answers of several projects; see `iava.benchmarks.pope_answers`."""
        places, questions, texts = zip(*read_answers(path, files.get("questions")), strict=True)
        with_unique_ids(list(zip(places, questions, strict=True)))
        return Predictions(Task(self.name, "test", list(questions), unopened), list(texts), list(places))


def _pope_question(where: str, row: dict[str, Any]) -> Question:
    image, category = text_of(where, row, "image_source"), text_of(where, row, "category")
    # The questions of each category are numbered from one.
    name = f"{category}-{id_of(where, row, 'question_id')}"
    return Question(name, (image,), category, words_of(where, row, "question"), yes_or_no(where, row, "answer"))


def build_questions(
    objects: Mapping[str, set[str]],
    *,
    per_image: int = 3,
    seed: int,
    region: Callable[[str, str], Region | None] = lambda image, kind: None,
) -> list[Question]:
    """POPE's three samplings over images whose objects are known.

    Every image gets k = min(per_image, kinds of objects in it) positives, the same in all three categories, and k
    negatives in each category. "random" negatives are drawn uniformly from the absent kinds. "popular" ones are the
    most frequent absent kinds of the whole set. "adversarial" ones are the absent kinds that appear most often
    together with the image's own objects; of equal ones the more frequent come first.

    Args:
        objects: image id -> kinds of objects in it. Frequencies are taken over all of it.
        per_image: questions of each truth for each image and category.
        seed: for the positives and the random negatives. An image's draws depend on its position only.
        region: the boxes that answer the question about a kind in an image, where they are known.

    Returns:
        Questions image by image, category by category, yes and no in turn.

    Raises:
        IavaError: if per_image is below 1, or an image lacks fewer than k kinds, so that there is nothing to ask.
    """
    if per_image < 1:
        raise IavaError(f"per_image is {per_image}: it must be at least 1")
    frequency = Counter(kind for kinds in objects.values() for kind in kinds)
    together: Counter[tuple[str, str]] = Counter()
    for kinds in objects.values():
        together.update(pair for a, b in combinations(sorted(kinds), 2) for pair in ((a, b), (b, a)))
    universe = sorted(frequency)
    questions = []
    for position, (image, kinds) in enumerate(objects.items()):
        rng = np.random.default_rng([seed, position])
        present, absent = sorted(kinds), [kind for kind in universe if kind not in kinds]
        k = min(per_image, len(present))
        if len(absent) < k:
            raise IavaError(f"image {image} lacks {len(absent)} of {len(universe)} kinds of objects: {k} are needed")
        positives = _drawn(rng, present, k)
        popular = sorted(absent, key=lambda kind: (-frequency[kind], kind))
        company = {kind: sum(together[other, kind] for other in kinds) for kind in absent}
        adversarial = sorted(absent, key=lambda kind: (-company[kind], -frequency[kind], kind))
        negatives = {"random": _drawn(rng, absent, k), "popular": popular[:k], "adversarial": adversarial[:k]}
        for category in CATEGORIES:
            pairs = zip(positives, negatives[category], strict=True)
            asked = [answered for yes, no in pairs for answered in ((yes, "yes"), (no, "no"))]
            questions += [
                Question(f"{image}-{category}-{number}", (image,), category, wording(kind), truth, region(image, kind))
                for number, (kind, truth) in enumerate(asked, start=1)
            ]
    return questions


def _drawn(rng: np.random.Generator, kinds: Sequence[str], k: int) -> list[str]:
    return [kinds[i] for i in rng.permutation(len(kinds))[:k]]


def wording(kind: str) -> str:
    """POPE's question about a kind of object: "Is there an apple in the image?"."""
    return f"Is there {with_article(kind)} in the image?"


def fair_region(scene: Scene, kind: str) -> Region:
    """The boxes of a kind. For an absent kind, the boxes of a present one, drawn at random but always the same.

    No box for what is absent would tell the answer.
    """
    drawn = random.Random(f"{scene.id} {kind}").choice(sorted(scene.names))
    return tuple(scene.boxes(kind if kind in scene.names else drawn))


def pope_lines(instances: Path, images: Path, *, per_image: int, limit: int | None, seed: int) -> str:
    """Builds POPE's questions for a data set with annotated objects; see `build_questions`.

    Args:
        instances: JSON in the format of COCO. Frequencies are taken over all of its images.
        images: the folder of the images that are asked about.
        per_image: questions of each truth for each image and category.
        limit: only so many of the images with objects in them, drawn at random. None: all.
        seed: of all draws.

    Returns:
        JSON lines {question_id, image, text, label, category}, as `POPE.load` takes them.

    Raises:
        IavaError: if the annotations are broken, the limit is out of range, an image is missing, or an image shows so
            many kinds of objects that too few are absent.
    """
    annotated = read_instances(instances)
    objects = {image: kinds for image, kinds in annotated.objects.items() if kinds}
    if limit is not None and not 1 <= limit <= len(objects):
        raise IavaError(f"limit is {limit}: it must be from 1 to {len(objects)}, the images with objects in them")
    if not objects:
        raise IavaError(f"{instances} has no objects in its images: there is nothing to ask about")
    drawn = set(np.random.default_rng(seed).permutation(len(objects))[:limit].tolist())
    chosen = {image for number, image in enumerate(objects) if number in drawn}
    check_images(((str(instances), annotated.files[image]) for image in objects if image in chosen), images)
    rows = [
        {"image": annotated.files[q.image], "text": q.question, "label": q.truth, "category": q.category}
        for q in build_questions(objects, per_image=per_image, seed=seed)
        if q.image in chosen
    ]
    lines = [json.dumps({"question_id": number} | row, ensure_ascii=False) for number, row in enumerate(rows, start=1)]
    return "\n".join(lines) + "\n"
