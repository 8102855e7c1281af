"""DASH-B: images that make models see an object that is not there, and as many that show it.

DASH: Detection and Assessment of Systematic Hallucinations of VLMs (arXiv 2503.23573).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iava.benchmarks import yes_no
from iava.benchmarks.benchmark import Benchmark, Hub, Predictions, unopened
from iava.benchmarks.parsers import YES_NO, Parser, yes_first
from iava.benchmarks.sources.files import folder_task, found
from iava.benchmarks.sources.hub import parquet_files, parquet_task
from iava.benchmarks.task import Located, Question, Task, with_unique_ids
from iava.errors import IavaError
from iava.jsonfiles import id_of, read_json, read_lines, text_of, texts_of, words_of, yes_or_no
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share

PROMPT = "Can you see a {} in this image? Please answer only with yes or no."
_FILES = {"neg": "no", "pos": "yes"}
"""Folder of images, and part of the name of its list -> the answer."""


class DASHB(Benchmark):
    """DASH-B's 2,682 images of 70 objects."""

    source = "images/ of github.com/YanNeu/DASH-B with its two lists, and neg/ and pos/ with the images"
    hub = Hub(("YanNeu/DASH-B",), "test", ("question_id", "question", "answer", "object"))
    asks_yes_no = True
    parsers: ClassVar[Mapping[str, Parser]] = {**YES_NO, "official": yes_first}

    def load(self, folder: Path) -> Task:
        """Reads parquet files, or dash_benchmark_neg.json and dash_benchmark_pos.json.

        The lists hold the images' names: data set -> object -> names. An image lies in neg/ or pos/ under its data set
        and object.
        """
        if parquets := parquet_files(folder, self.hub.split):
            columns = self.hub.columns
            return parquet_task(
                self.name,
                self.hub.split,
                parquets,
                columns,
                _dash_question,
                lambda found: with_unique_ids(found, "image"),
            )
        located: Located = []
        for part, truth in _FILES.items():
            file = found(folder, f"dash_benchmark_{part}.json")[0]
            for where, name, image in _read_objects(file):
                path = f"{part}/{image}"
                located.append((where, Question(path, (path,), name, PROMPT.format(name), truth)))
        return folder_task(self.name, "test", with_unique_ids(located, "image"), folder)

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall."""

        def tally(records: Sequence[Record]) -> np.ndarray:
            return yes_no.tally([record["truth"] for record in records], [record["parsed"] for record in records])

        return [Part("overall", lambda _: True, tally, rates, "accuracy")]

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads the answers of the authors' script: {img_id, object_name, gt, response}."""
        located, texts = [], []
        for where, row in read_lines(path):
            name, truth = text_of(where, row, "object_name"), yes_or_no(where, row, "gt")
            # Images of objects that are there are numbered for each object.
            image = f"{truth}/{name}/{id_of(where, row, 'img_id')}"
            located.append((where, Question(image, (image,), name, PROMPT.format(name), truth)))
            texts.append(text_of(where, row, "response"))
        questions = [question for _, question in with_unique_ids(located, "image")]
        return Predictions(Task(self.name, "test", questions, unopened), texts, [where for where, _ in located])


def _read_objects(file: Path) -> list[tuple[str, str, str]]:
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(objects, dict) for objects in content.values()):
        raise IavaError(f"{file}: this must be an object of data sets, each an object of lists of images")
    return [
        (f"{file}, {data}, {name}", name, f"{data}/{name}/{image}")
        for data, objects in content.items()
        for name in objects
        for image in texts_of(f"{file}, {data}", objects, name)
    ]


def _dash_question(where: str, row: dict[str, Any]) -> Question:
    name, kind = id_of(where, row, "question_id"), text_of(where, row, "object")
    return Question(name, (name,), kind, words_of(where, row, "question"), yes_or_no(where, row, "answer"))


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 6) sums of `yes_no.tally` -> accuracy, tnr, tpr, harmonic_mean of these two, yes_ratio and unparsed.

    tnr is the accuracy on images without the object, tpr on those with it. All are fractions of 1.
    """
    n, correct, true_yes, _, is_yes, _ = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    tnr, tpr = share(correct - true_yes, n - is_yes), share(true_yes, is_yes)
    found = yes_no.rates(counts)
    return {
        "accuracy": found["accuracy"],
        "tnr": tnr,
        "tpr": tpr,
        "harmonic_mean": share(2 * tnr * tpr, tnr + tpr),
        "yes_ratio": found["yes_ratio"],
        "unparsed": found["unparsed"],
    }
