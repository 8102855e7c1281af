"""MME: two questions about each image, one to be answered yes and one no, in fourteen subtasks.

MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models (arXiv 2306.13394).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iava.benchmarks.benchmark import PROMPT_STYLES, Benchmark, Hub, Predictions, unopened
from iava.benchmarks.parsers import YES_NO, Parser
from iava.benchmarks.pope import wording
from iava.benchmarks.sources.files import MissingDataError, folder_task, folders_below
from iava.benchmarks.sources.hub import parquet_files, parquet_task
from iava.benchmarks.task import Located, Question, Task
from iava.errors import IavaError
from iava.jsonfiles import id_of, read_lines, read_text, text_of, words_of, yes_or_no
from iava.metrics.parts import Part, Record
from iava.pocket.scenes import Scene
from iava.pocket.text import colour_question, colourable_objects, count_question, position_question, positions
from iava.pocket.world import COLOURS, OBJECT_CLASSES

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
HALLUCINATION = ("existence", "count", "position", "color")
SUBTASKS = PERCEPTION + COGNITION
TOTALS = {"perception": PERCEPTION, "cognition": COGNITION, "hallucination": HALLUCINATION}
_IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")
_PREFIX = 4
_ENDING = " Please answer yes or no."
_SCENES_SEED = 0


def first_letters(text: str, _: Any = None) -> str | None:
    """As the benchmark's own script reads answers: "yes", else "no", if its letters are among the first four.

    So "Not sure" is a no and "Eyes" a yes. Leading blanks count.
    """
    start = text.lower()[:_PREFIX]
    return next((answer for answer in ("yes", "no") if answer in start), None)


class MME(Benchmark):
    """MME, as far as its subtasks are there."""

    source = "the subtasks' folders of MME_Benchmark_release_version, which its authors give on request"
    hub = Hub(("lmms-lab/MME", "lmms-lab-encoder/MME"), "test", ("question_id", "question", "answer", "category"))
    asks_yes_no = True
    parsers: ClassVar[Mapping[str, Parser]] = {"official": first_letters, **YES_NO}
    has_pocket = True

    def load(self, folder: Path) -> Task:
        """Reads parquet files, or folders, one for each subtask, with texts of two lines "question<tab>answer".

        Each text has an image of the same name. The texts and images of a subtask lie together, or in
        `questions_answers_YN` and `images`.
        """
        if parquets := parquet_files(folder, self.hub.split):
            return parquet_task(self.name, self.hub.split, parquets, self.hub.columns, _mme_question, paired)
        for root in folders_below(folder):
            located: Located = []
            for subtask in SUBTASKS:
                texts, images = root / subtask / "questions_answers_YN", root / subtask / "images"
                if not texts.is_dir():
                    texts = images = root / subtask
                for text in sorted(texts.glob("*.txt")):
                    located += _pair(text, images, subtask, root)
            if located:
                return folder_task(self.name, "test", paired(located), root)
        raise MissingDataError(f"{folder} has none of MME's folders with questions: {', '.join(SUBTASKS)}")

    def prompt(self, question: Question, style: str) -> str:
        """LLaVA's and lmms-eval's endings replace the one that the questions have."""
        asked = question.question.replace(_ENDING, "") if style in ("llava", "lmms-eval") else question.question
        return PROMPT_STYLES[style].format(asked)

    def pocket(self, scenes: Sequence[Scene]) -> list[Question]:
        """Pairs of the subtasks existence, count, position and color, where a scene has something to ask about."""
        return [
            Question(f"{scene.id}-{subtask}-{number}", (scene.id,), subtask, question, truth)
            for scene in scenes
            for subtask, *pair in _scene_pairs(scene, np.random.default_rng([_SCENES_SEED, scene.index]))
            for number, (question, truth) in enumerate(zip(pair, ("yes", "no"), strict=True), start=1)
        ]

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall (the sum of what was asked), the totals whose subtasks were all asked, and each subtask."""
        asked = [name for name in SUBTASKS if name in categories]
        totals = {name: subtasks for name, subtasks in TOTALS.items() if set(subtasks) <= set(asked)}
        return [_part(name, of) for name, of in {"overall": asked, **totals, **{one: [one] for one in asked}}.items()]

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads {question_id, category, question, answer, prediction}, or the folder that MME's own script reads.

        The folder has a text for each subtask, with lines of four columns: image, question, answer and prediction.
        """
        located, texts = [], []
        for where, row in _result_lines(path) if path.is_dir() else read_lines(path):
            located.append((where, _mme_question(where, row, text_of)))
            texts.append(text_of(where, row, "prediction"))
        questions = [question for _, question in paired(located)]
        return Predictions(Task(self.name, "test", questions, unopened), texts, [where for where, _ in located])

    def is_category(self, name: str) -> bool:
        """Whether MME has such a subtask."""
        return name in SUBTASKS

    def score(self, records: Sequence[Record]) -> dict[str, Any]:
        """MME's numbers.

        Returns:
            n: questions. unparsed: share of 1. subtasks: for each that was asked n, acc, acc_plus and score. perception
            (at most 2000), cognition (800), hallucination (800): sums of scores. missing: subtasks that were not
            asked, which the sums lack.
        """
        sums = tally(records, SUBTASKS).sum(axis=0).reshape(-1, 4)
        asked = {record["category"] for record in records}
        subtasks = {
            name: {"n": int(sums[number, 0])} | {key: float(value) for key, value in rates(sums[number]).items()}
            for number, name in enumerate(SUBTASKS)
            if name in asked
        }
        totals = {
            name: sum((subtasks[part]["score"] for part in parts if part in subtasks), 0.0)
            for name, parts in TOTALS.items()
        }
        missing = [name for name in SUBTASKS if name not in subtasks]
        unparsed = sum(record["parsed"] is None for record in records) / max(1, len(records))
        return {"n": len(records), "unparsed": unparsed, "subtasks": subtasks, **totals, "missing": missing}


def _part(name: str, subtasks: Sequence[str]) -> Part:
    return Part(name, subtasks.__contains__, lambda records: tally(records, subtasks), rates, "score")


def _mme_question(where: str, row: dict[str, Any], read: Any = words_of) -> Question:
    image, subtask = id_of(where, row, "question_id"), check_subtask(where, text_of(where, row, "category"))
    return Question(image, (image,), subtask, read(where, row, "question"), yes_or_no(where, row, "answer"))


def _result_lines(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    names = ("question_id", "question", "answer", "prediction")
    files = [file for subtask in SUBTASKS if (file := folder / f"{subtask}.txt").is_file()]
    if not files:
        raise MissingDataError(f"{folder} has no results of MME, such as existence.txt")
    for file in files:
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if line.strip():
                cells = line.split("\t")
                if len(cells) != len(names):
                    raise IavaError(f"{file}, line {number}: there must be {', '.join(names)}, with tabs between")
                yield f"{file}, line {number}", dict(zip(names, cells, strict=True)) | {"category": file.stem}


def _pair(text: Path, images: Path, subtask: str, folder: Path) -> Located:
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
            located.append((where, Question(name, (name,), subtask, asked, truth)))
    if not located:
        raise IavaError(f"{text} is empty: MME asks two questions about each image")
    return located


def _scene_pairs(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """MME's subtasks, each with a question that is true of the scene and one that is not."""
    present, absent = sorted(scene.names), [name for name in OBJECT_CLASSES if name not in scene.names]
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
    coloured = colourable_objects(scene, scene.names)
    if coloured:
        thing = coloured[int(rng.integers(len(coloured)))]
        colour = str(rng.choice([colour for colour in COLOURS if colour != thing.colour]))
        yield "color", colour_question(thing.name, thing.colour), colour_question(thing.name, colour)


def check_subtask(where: str, name: str) -> str:
    """The name of a subtask.

    Raises:
        IavaError: if MME has no such subtask; begins with `where`.
    """
    if name not in SUBTASKS:
        raise IavaError(f"{where}: MME has no subtask {name!r}: use one of {', '.join(SUBTASKS)}")
    return name


def paired(located: Located) -> Located:
    """Checks that every image of a subtask is asked two different questions.

    Args:
        located: questions with any ids.

    Returns:
        The same questions; their ids are "IMAGE-1" and "IMAGE-2".

    Raises:
        IavaError: if an image is asked one question, three, or the same twice; with its place.
    """
    images: dict[tuple[str, str], list[tuple[str, Question]]] = {}
    numbered: Located = []
    for where, question in located:
        asked = images.setdefault((question.category, question.image), [])
        if any(question.question == other.question for _, other in asked):
            raise IavaError(f"{where}: image {question.image} was asked this before ({asked[0][0]})")
        if len(asked) == 2:
            raise IavaError(f"{where}: this is the third question about image {question.image}: MME asks two")
        asked.append((where, question))
        numbered.append((where, replace(question, id=f"{question.image}-{len(asked)}")))
    for (_, image), asked in images.items():
        if len(asked) < 2:
            raise IavaError(f"{asked[0][0]}: image {image} has one question: MME asks two about each")
    return numbered


def tally(records: Sequence[Record], of: Sequence[str]) -> np.ndarray:
    """What each question adds to the sums from which `rates` computes the metrics.

    Args:
        of: the subtasks that count. Every record must belong to one.

    Returns:
        (Q, 4 * len(of)) float: of each subtask questions, right ones, images, and images with two right ones. An image
        counts with the first of its two questions. An image that has lost a question does not count.
    """
    right = [record["parsed"] == record["truth"] for record in records]
    counts = np.zeros((len(records), len(of), 4))
    pairs: dict[tuple[int, str], list[int]] = {}
    for question, record in enumerate(records):
        number = of.index(record["category"])
        counts[question, number, :2] = 1, right[question]
        pairs.setdefault((number, record["image"]), []).append(question)
    for (number, _), asked in pairs.items():
        if len(asked) == 2:
            counts[asked[0], number, 2:] = 1, all(right[question] for question in asked)
    return counts.reshape(len(records), -1)


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """MME's metrics of one subtask, or of several together.

    Args:
        sums: (..., 4 * subtasks) sums of `tally`.

    Returns:
        acc (right questions) and acc_plus (images with both right) over all the subtasks, fractions of 1. score: the
        sum of 100 * (acc + acc_plus), at most 200 for each subtask. Each (...); NaN where a subtask has no questions.
    """
    subtasks = sums.reshape(*sums.shape[:-1], -1, 4)
    questions, right, images, both = np.moveaxis(subtasks, -1, 0)
    with np.errstate(invalid="ignore"):
        return {
            "acc": right.sum(axis=-1) / questions.sum(axis=-1),
            "acc_plus": both.sum(axis=-1) / images.sum(axis=-1),
            "score": 100 * (right / questions + both / images).sum(axis=-1),
        }
