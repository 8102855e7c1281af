"""Benchmarks in the layouts in which their authors publish them."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks import amber, mme, textvqa
from iava.benchmarks.chair import mentions
from iava.benchmarks.coco import chair_objects, read_instances
from iava.benchmarks.pope import CATEGORIES, build
from iava.benchmarks.task import Located, Question, Task, by_image
from iava.errors import IavaError
from iava.jsonfiles import (
    Unique,
    entries,
    id_of,
    read_json,
    read_lines,
    read_text,
    text_of,
    texts_of,
    words_of,
    yes_or_no,
)
from iava.lvlm.images import read_image

CAPTION_PROMPT = "Please describe this image in detail."
_IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")


def read_pope(files: Sequence[Path], images: Path) -> Task:
    """POPE's JSON lines {question_id, image, text, label}, a file a category, or one file with "category" in its lines.

    Args:
        files: named after their category, such as coco_pope_random.json, unless their lines say it.
        images: the folder of the images.

    Raises:
        IavaError: if a line is broken, a label is neither yes nor no, an id stands twice in a category, or an image is
            missing; with file and line.
    """
    ids = Unique("question_id")
    located: Located = []
    for file in files:
        of_file = [name for name in CATEGORIES if name in file.stem.lower()]
        for where, row in read_lines(file):
            if "category" not in row and len(of_file) != 1:
                raise IavaError(f"{where}: 'category' is missing, and the file's name does not say it")
            category = text_of(where, row, "category") if "category" in row else of_file[0]
            name, image = f"{category}-{id_of(where, row, 'question_id')}", text_of(where, row, "image")
            ids.add(where, name)
            truth = yes_or_no(where, row, "label")
            located.append((where, Question(name, image, category, words_of(where, row, "text"), truth)))
    return _task("pope", "test", located, images)


def pope_lines(instances: Path, images: Path, *, per_image: int, limit: int | None, seed: int) -> str:
    """Builds POPE's questions for a data set with annotated objects (see `iava.benchmarks.pope.build`).

    Args:
        instances: JSON as COCO has it. Frequencies are taken over all of its images.
        images: the folder of the images that are asked about.
        per_image: questions of each truth an image and category.
        limit: only so many of the images with objects in them, drawn at random. None: all.
        seed: of all draws.

    Returns:
        JSON lines {question_id, image, text, label, category}, as `read_pope` takes them.

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
        for q in build(objects, per_image=per_image, seed=seed)
        if q.image in chosen
    ]
    lines = [json.dumps({"question_id": number} | row, ensure_ascii=False) for number, row in enumerate(rows, start=1)]
    return "\n".join(lines) + "\n"


def read_mme(folder: Path) -> Task:
    """MME's folders, one a subtask: texts of two lines "question<tab>answer", each with an image of the same name.

    The texts and images of a subtask lie together, or in `questions_answers_YN` and `images`.

    Raises:
        IavaError: if there is no subtask, a text has not two lines, an answer is neither yes nor no, or an image is
            missing; with file and line.
    """
    located: Located = []
    for subtask in mme.SUBTASKS:
        texts, images = folder / subtask / "questions_answers_YN", folder / subtask / "images"
        if not texts.is_dir():
            texts = images = folder / subtask
        for text in sorted(texts.glob("*.txt")):
            located += _mme_pair(text, images, subtask, folder)
    if not located:
        raise IavaError(f"{folder} has none of MME's folders with questions: {', '.join(mme.SUBTASKS)}")
    return _task("mme", "test", mme.paired(located), folder)


def _mme_pair(text: Path, images: Path, subtask: str, folder: Path) -> Located:
    image = next((path for end in _IMAGE_ENDINGS if (path := images / (text.stem + end)).exists()), None)
    if image is None:
        raise IavaError(f"{text}: its image {text.stem}{{{','.join(_IMAGE_ENDINGS)}}} is missing from {images}")
    name = image.relative_to(folder).as_posix()
    located: Located = []
    for number, line in enumerate(read_text(text).split("\n"), start=1):
        if line.strip():
            where = f"{text}, line {number}"
            question, tab, answer = line.strip().rpartition("\t")
            if not tab:
                raise IavaError(f"{where}: a line must be a question, a tab, and yes or no")
            truth = yes_or_no(where, {"answer": answer}, "answer")
            asked = words_of(where, {"question": question.strip()}, "question")
            located.append((where, Question(name, name, subtask, asked, truth)))
    if not located:
        raise IavaError(f"{text} is empty: MME asks two questions about each image")
    return located


def read_textvqa(file: Path, images: Path) -> Task:
    """TextVQA's JSON: data {question_id, image_id, question, answers}; images are named after their ids.

    Raises:
        IavaError: if it is broken, an id stands twice, there are not ten answers, or an image is missing; with file
            and entry.
    """
    ids = Unique("question_id")
    located: Located = []
    for where, row in entries(file, read_json(file), "data"):
        name, image = id_of(where, row, "question_id"), id_of(where, row, "image_id") + ".jpg"
        ids.add(where, name)
        answers = textvqa.ten_answers(where, texts_of(where, row, "answers"))
        asked = textvqa.PROMPT.format(words_of(where, row, "question"))
        located.append((where, Question(name, image, "textvqa", asked, answers)))
    return _task("textvqa", "validation", located, images, lambda _, text: textvqa.normalize(text))


def read_chair(instances: Path, images: Path, captions: Path | None = None) -> Task:
    """COCO's instances JSON: one description an image that is in the folder; the truth is the list of its classes.

    Raises:
        IavaError: if it is broken, or the folder has none of its images.
    """
    annotated = read_instances(instances)
    objects = chair_objects(annotated, captions)
    there = _names(images)
    located = [
        (str(instances), Question(image, file, "caption", CAPTION_PROMPT, sorted(objects[image])))
        for image, file in annotated.files.items()
        if file in there
    ]
    if not located:
        raise IavaError(f"{images} has none of the {len(annotated.files)} images of {instances}")
    return _task("chair", "val", located, images, lambda _, text: mentions(text))


def read_amber(queries: Path, annotations: Path, images: Path) -> Task:
    """AMBER's queries {id, image, query} with its annotations; the category is the annotation's type.

    Raises:
        IavaError: if a file is broken, an id stands twice or is not annotated, or an image is missing.
    """
    known = amber.read_annotations(annotations)
    ids = Unique("id")
    located: Located = []
    for where, row in entries(queries, {"query": read_json(queries)}, "query"):
        name = id_of(where, row, "id")
        ids.add(where, name)
        if name not in known.by_id:
            raise IavaError(f"{where}: {annotations} has no question {name}")
        one = known.by_id[name]
        truth = list(one.truth) if one.type == amber.GENERATIVE else one.truth
        image, asked = text_of(where, row, "image"), words_of(where, row, "query")
        located.append((where, Question(name, image, one.type, asked, truth)))
    return _task("amber", "test", located, images, lambda q, text: amber.read(text, known.by_id[q.id], known))


def check_images(located: Iterable[tuple[str, str]], folder: Path) -> None:
    """Finds out whether images are in a folder.

    Args:
        located: where an image is named, for the message, and its file name, which may have folders in it.

    Raises:
        IavaError: if some are missing: which is the first, where it is named, and how many there are.
    """
    there: dict[Path, set[str]] = {}
    wanted: dict[str, str] = {}
    for where, image in located:
        wanted.setdefault(image, where)
    missing = []
    for image in wanted:
        path = folder / image
        if path.name not in there.setdefault(path.parent, _names(path.parent)):
            missing.append(image)
    if missing:
        more = f" ({len(missing)} of {len(wanted)} images are)" if len(missing) > 1 else ""
        raise IavaError(f"{wanted[missing[0]]}: the image {missing[0]} is missing from {folder}{more}")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _task(
    benchmark: str,
    split: str,
    located: Located,
    images: Path,
    read: Callable[[Question, str], Any] | None = None,
) -> Task:
    if not located:
        raise IavaError(f"there are no questions of {benchmark} in it")
    check_images(((where, question.image) for where, question in located), images)
    questions = by_image([question for _, question in located])
    return Task(benchmark, split, questions, lambda image: read_image(images / image), read)
