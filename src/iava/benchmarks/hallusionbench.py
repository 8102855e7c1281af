"""HallusionBench: the same question about an image, an edited image, or none.

HallusionBench: An Advanced Diagnostic Suite for Entangled Language Hallucination and Visual Illusion in Large
Vision-Language Models (arXiv 2310.14566). The authors let GPT-4 judge free answers; here a parser reads yes and no.
Where they count an uncertain answer to a question without an image as right, an answer that says neither is right here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks.benchmark import Benchmark, Hub, Predictions, unopened
from iava.benchmarks.parsers import YES_NO
from iava.benchmarks.sources.files import folder_task, found
from iava.benchmarks.sources.hub import parquet_files, parquet_task
from iava.benchmarks.task import Question, Task, with_unique_ids
from iava.errors import IavaError
from iava.jsonfiles import id_of, read_lines, text_of, words_of
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share

QUESTION_KINDS = ("VD", "VS")
"""Visual dependent questions, and visual supplement ones, which have an answer without an image, too."""
_INPUTS = {"0": "text", "1": "image", "2": "edited"}
TEXT_ONLY = "VS text"
_PARTS = {
    "VD": ("VD image", "VD edited"),
    "VS": (TEXT_ONLY, "VS image", "VS edited"),
    "easy": ("VD image", TEXT_ONLY, "VS image"),
    "hard": ("VD edited", "VS edited"),
}
"""Rows -> categories. Hard questions are about edited images."""
_TRUTHS = {"0": "no", "1": "yes"}
_IDS = ("set_id", "figure_id", "question_id")


class HallusionBench(Benchmark):
    """HallusionBench's questions, those without an image included where they are there."""

    source = "HallusionBench.json of github.com/tianyi-lab/HallusionBench and its hallusion_bench/ with the images"
    hub = Hub(
        ("lmms-lab/HallusionBench", "lmms-lab-encoder/HallusionBench"),
        "image",
        ("category", "subcategory", "visual_input", *_IDS, "question", "gt_answer"),
    )
    asks_yes_no = True
    parsers = YES_NO

    def load(self, folder: Path) -> Task:
        """Reads parquet files of the questions about images, or HallusionBench.json."""
        if parquets := parquet_files(folder, self.hub.split):
            columns = self.hub.columns
            return parquet_task(
                self.name,
                self.hub.split,
                parquets,
                columns,
                _hallusion_question,
                lambda found: with_unique_ids(found, "question"),
            )
        file = found(folder, "HallusionBench.json")[0]
        located = [(where, _hallusion_question(where, row)) for where, row in read_lines(file)]
        return folder_task(self.name, "test", with_unique_ids(located, "question"), folder)

    def is_category(self, name: str) -> bool:
        """Whether it is a kind of question with an input it has."""
        return any(name in some for some in _PARTS.values())

    def is_answer(self, row: Record) -> bool:
        """Also with an id that says set, figure and question."""
        return super().is_answer(row) and row["id"].count("/") == 4

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall, visual dependent and supplement, easy and hard, as far as they were asked."""
        asked = {name: [one for one in some if one in categories] for name, some in _PARTS.items()}
        rows = {"overall": list(categories), **{name: some for name, some in asked.items() if some}}
        return [Part(name, some.__contains__, tally, rates, "a_acc") for name, some in rows.items()]

    def right(self, records: Sequence[Record]) -> float:
        """The share of right answers to the questions of one set of images."""
        return sum(map(_is_judged_right, records)) / len(records)

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads HallusionBench_result.json: the rows of HallusionBench.json with "model_prediction"."""
        located, texts = [], []
        for where, row in read_lines(path):
            located.append((where, _hallusion_question(where, row)))
            texts.append(text_of(where, row, "model_prediction"))
        questions = [question for _, question in with_unique_ids(located, "question")]
        return Predictions(Task(self.name, "test", questions, unopened), texts, [where for where, _ in located])


def _hallusion_question(where: str, row: dict[str, Any]) -> Question:
    kind, subcategory = text_of(where, row, "category"), text_of(where, row, "subcategory")
    shown, truth = id_of(where, row, "visual_input"), id_of(where, row, "gt_answer")
    if kind not in QUESTION_KINDS or shown not in _INPUTS:
        raise IavaError(f"{where}: category {kind!r} with visual_input {shown!r} is unknown")
    if truth not in _TRUTHS:
        raise IavaError(f"{where}: 'gt_answer' is {truth!r}: it must be 0 or 1")
    group = f"{kind}/{subcategory}/{id_of(where, row, 'set_id')}"
    figure, number = id_of(where, row, "figure_id"), id_of(where, row, "question_id")
    image = f"{kind}/{subcategory}/{id_of(where, row, 'set_id')}_{figure}.png"
    return Question(
        f"{group}/{figure}/{number}",
        () if shown == "0" else (image,),
        f"{kind} {_INPUTS[shown]}",
        words_of(where, row, "question"),
        _TRUTHS[truth],
        group=group,
    )


def _is_judged_right(record: Record) -> bool:
    uncertain = record["parsed"] is None and bool(record["text"].strip())
    return record["parsed"] == record["truth"] or (uncertain and record["category"] == TEXT_ONLY)


def tally(records: Sequence[Record]) -> np.ndarray:
    """(Q, 7) float: questions, right ones, unparsed ones, question pairs and those right, figures and those right.

    A question pair is one question about all images of a set. A pair and a figure count with their first question, and
    are right if all answers are. A question without an image belongs to no figure.
    """
    rows = np.zeros((len(records), 7))
    pairs: dict[tuple[str, str], list[int]] = {}
    figures: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        rows[number, :3] = 1, _is_judged_right(record), record["parsed"] is None
        figure, _, question = record["id"].rpartition("/")
        pairs.setdefault((figure.rpartition("/")[0], question), []).append(number)
        if record["category"] != TEXT_ONLY:
            figures.setdefault(figure, []).append(number)
    for column, groups in ((3, pairs.values()), (5, figures.values())):
        for some in groups:
            rows[some[0], column : column + 2] = 1, rows[some, 1].all()
    return rows


def rates(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 7) sums of `tally` -> the accuracy of questions (a_acc), question pairs (q_acc) and figures (f_acc).

    Also unparsed. All are fractions of 1, and 0 where nothing was counted.
    """
    questions, right, unparsed, pairs, whole_pairs, figures, whole_figures = np.moveaxis(sums, -1, 0)
    return {
        "a_acc": share(right, questions),
        "q_acc": share(whole_pairs, pairs),
        "f_acc": share(whole_figures, figures),
        "unparsed": share(unparsed, questions),
    }
