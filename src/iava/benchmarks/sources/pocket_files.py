"""Writes pocket scenes in the layouts that the benchmarks' authors publish, to try their readers without a download."""

import json
from pathlib import Path

from iava.benchmarks.sources.pocket import pocket
from iava.benchmarks.task import Task
from iava.errors import IavaError
from iava.files import cannot, check_folder
from iava.pocket.scenes import IMAGES, Scene, load_scene
from iava.pocket.text import NUMBERS, colourable_objects, plural


def write_pocket(folder: Path, split: str, limit: int | None = None) -> list[str]:
    """Writes `pope`, `mme` and `textvqa` into a new folder, in the layouts that the benchmarks' `load` reads.

    Scenes hold no writing. The questions in `textvqa` ask for the number and the colour of things, in TextVQA's form:
    ten equal answers of one word.

    Args:
        split: of `iava.pocket.scenes.IMAGES`, such as "tune", "test-heldout" or "test-blur".
        limit: the first so many images; None: all.

    Returns:
        The names of the data sets.

    Raises:
        IavaError: if the split is unknown, the limit below 1, or the folder is in use or cannot be written.
    """
    pope, mme = pocket("pope", split, limit), pocket("mme", split, limit)
    check_folder(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IavaError(f"{folder} is in use: choose a new folder for the scenes")
    try:
        _write_pope(pope, folder / "pope")
        _write_mme(mme, folder / "mme")
        _write_textvqa(split, pope, folder / "textvqa")
    except OSError as error:
        raise cannot("write", folder, error) from None
    return ["pope", "mme", "textvqa"]


def _write_pope(task: Task, folder: Path) -> None:
    _pictures(task, folder / "images", "png")
    for category in dict.fromkeys(question.category for question in task.questions):
        rows = [
            {
                "question_id": number,
                "image": f"{question.image}.png",
                "text": question.question,
                "label": question.truth,
            }
            for number, question in enumerate((q for q in task.questions if q.category == category), start=1)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"pocket_pope_{category}.json").write_text(lines, encoding="utf-8")


def _write_mme(task: Task, folder: Path) -> None:
    for subtask in dict.fromkeys(question.category for question in task.questions):
        asked = [question for question in task.questions if question.category == subtask]
        pairs: dict[str, list[str]] = {}
        for question in asked:
            pairs.setdefault(question.image, []).append(f"{question.question}\t{question.truth.capitalize()}\n")
        place = folder / subtask
        place.mkdir(parents=True)
        for image, lines in pairs.items():
            task.open_image(image).save(place / f"{image}.png")
            (place / f"{image}.txt").write_text("".join(lines), encoding="utf-8")


def _write_textvqa(split: str, task: Task, folder: Path) -> None:
    # The data set's images are JPEG by name.
    _pictures(task, folder / "train_images", "jpg")
    scenes = (load_scene(split, index) for index in range(IMAGES[split]))
    wanted = set(task.images)
    asked = [(scene.id, *pair) for scene in scenes if scene.id in wanted for pair in _short_answers(scene)]
    rows = [
        {"question_id": number, "image_id": image, "question": question, "answers": [answer] * 10}
        for number, (image, question, answer) in enumerate(asked, start=1)
    ]
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}), encoding="utf-8")


def _short_answers(scene: Scene) -> list[tuple[str, str]]:
    counts = [
        (f"How many {plural(name)} are there in the image?", NUMBERS[scene.counts[name]])
        for name in sorted(scene.names)
    ]
    coloured = colourable_objects(scene, scene.names)
    return counts + [(f"What colour is the {one.name}?", one.colour) for one in coloured]


def _pictures(task: Task, folder: Path, ending: str) -> None:
    folder.mkdir(parents=True)
    for image in task.images:
        task.open_image(image).save(folder / f"{image}.{ending}", quality=95)
