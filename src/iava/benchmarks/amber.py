"""AMBER: descriptions checked against annotated objects, and yes-no questions about existence, attributes, relations.

AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation (arXiv 2311.07397). The benchmark's
script finds nouns with a tagger and takes words of similar meaning, by word vectors, as right: `pipeline="official"`.
Our own reading needs neither. It counts every noun that is among the benchmark's own object words, and the table of
associated words alone says what else is right. CHAIR and Hal come out higher, Cover and Cog lower.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iava.benchmarks import yes_no
from iava.benchmarks.amber_words import (
    DIMENSIONS,
    GENERATIVE,
    OBJECT_COUNTS,
    SPACY_MODEL,
    Annotations,
    read,
    read_annotations,
    read_official,
    spacy_similarity,
)
from iava.benchmarks.benchmark import (
    CAPTION_GENERAL,
    Benchmark,
    Predictions,
    is_texts,
    metrics_of,
    needed,
    unopened,
)
from iava.benchmarks.parsers import YES_NO, Parser
from iava.benchmarks.sources.files import folder_task, found
from iava.benchmarks.task import Located, Question, Task
from iava.errors import IavaError
from iava.jsonfiles import Unique, entries, id_of, read_json, read_lines, text_of, words_of
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share

PIPELINES = ("own", "official")
DIMENSION_NAMES = ("existence", "attribute", "state", "number", "action", "relation")
_FLIPPED = {"yes": "no", "no": "yes"}
_MOST = 1_000_000
"""More words than any description names."""


def literal_answer(text: str, _: Any = None) -> str | None:
    """As the benchmark's own script: only the literal texts "Yes" and "No" count."""
    return {"Yes": "yes", "No": "no"}.get(text)


class AMBER(Benchmark):
    """AMBER's descriptions and yes-no questions.

    Args:
        pipeline: of `PIPELINES`: how descriptions are read.
        spacy_model: of the official pipeline, a name or a folder.

    Raises:
        IavaError: if there is no such pipeline, or a model is named for our own.
    """

    source = "data/ of github.com/junyangwang0410/AMBER and image/ with its images"
    asks_yes_no = True
    parsers: ClassVar[Mapping[str, Parser]] = {**YES_NO, "official": literal_answer}
    max_new_tokens = 512
    score_files = ("annotations",)

    def __init__(self, name: str, pipeline: str = "own", spacy_model: str | None = None) -> None:
        super().__init__(name)
        if pipeline not in PIPELINES:
            raise IavaError(f"unknown pipeline {pipeline!r}: use one of {', '.join(PIPELINES)}")
        if spacy_model is not None and pipeline != "official":
            raise IavaError("--spacy-model was given, but only --pipeline official uses one")
        self._model = (spacy_model or SPACY_MODEL) if pipeline == "official" else None

    def settings(self) -> dict[str, Any]:
        """The official pipeline and its model, if it reads descriptions."""
        return {} if self._model is None else {"pipeline": "official", "spacy_model": self._model}

    def general(self, category: str | None) -> str | None:
        """That of captions where only descriptions are asked for. The yes-no questions have the methods' own."""
        return CAPTION_GENERAL if category == GENERATIVE else None

    def load(self, folder: Path) -> Task:
        """Reads the queries {id, image, query} with their annotations. The category is the annotation's type."""
        queries = found(folder, "data/query/query_all.json", "query/query_all.json", "query_all.json")[0]
        annotations = found(folder, "data/annotations.json", "annotations.json")[0]
        known = read_annotations(annotations)
        ids = Unique("id")
        located: Located = []
        for where, row in entries(queries, {"query": read_json(queries)}, "query"):
            name = id_of(where, row, "id")
            ids.add(where, name)
            image, asked = text_of(where, row, "image"), words_of(where, row, "query")
            located.append((where, _amber_question(where, name, image, asked, known, annotations)))
        return folder_task(self.name, "test", located, folder, self._reader(known))

    def _reader(self, known: Annotations) -> Callable[[Question, str], Any]:
        if self._model is None:
            return lambda question, text: read(text, known.by_id[question.id], known)
        similar = spacy_similarity(self._model)
        return lambda question, text: read_official(text, known.by_id[question.id], known, similar)

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall, generative, discriminative and its dimensions, as far as they were asked."""
        kinds = [name for name in categories if name != GENERATIVE]
        dimensions = {name: [kind for kind in kinds if name in DIMENSIONS[kind]] for name in DIMENSION_NAMES}
        parts = [_questions_part(name, some) for name, some in {"discriminative": kinds, **dimensions}.items() if some]
        if GENERATIVE in categories:
            parts.insert(0, _descriptions_part("generative"))
        if kinds and GENERATIVE in categories:
            return [Part("overall", lambda _: True, tally, joined, "score"), *parts]
        return [_questions_part("overall", kinds) if kinds else _descriptions_part("overall"), *parts]

    def is_category(self, name: str) -> bool:
        """Whether it is a type of AMBER's annotations."""
        return name == GENERATIVE or name in DIMENSIONS

    def is_answer(self, row: Record) -> bool:
        """Descriptions have a list of objects and the counts of `read`; all others are answered with yes or no."""
        if row["category"] != GENERATIVE:
            return super().is_answer(row)
        counts = row.get("parsed")
        there = isinstance(counts, dict) and all(counts.get(name) in range(_MOST) for name in OBJECT_COUNTS)
        return there and is_texts(row["truth"])

    def right(self, records: Sequence[Record]) -> float:
        """The share of right answers. A description is right if it names no wrong object."""
        return sum(map(_is_amber_right, records)) / len(records)

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads JSON lines {id, response}, with the file "annotations"."""
        annotations = needed(self.name, files, "annotations")
        known = read_annotations(annotations)
        ids = Unique("id")
        questions, texts, places = [], [], []
        for where, row in read_lines(path):
            name = id_of(where, row, "id")
            ids.add(where, name)
            questions.append(_amber_question(where, name, name, name, known, annotations))
            texts.append(text_of(where, row, "response"))
            places.append(where)
        return Predictions(Task(self.name, "test", questions, unopened, self._reader(known)), texts, places)

    def score(self, records: Sequence[Record]) -> dict[str, Any]:
        """AMBER's numbers for the questions that were answered.

        Returns:
            generative: n, chair (object words that are wrong), cover (annotated objects that were named), hal
            (responses with a wrong object), cog (imagined objects that were named). discriminative: n, accuracy,
            precision, recall and f1 with "no" as the positive class, no_ratio, unparsed. dimensions: the same for
            each. All are fractions of 1. A part that was not answered is None. score: (100 - 100 chair + 100 f1) / 2,
            from 0 to 100, or None.
        """
        parts = {part.name: part for part in self.parts(list(dict.fromkeys(record["category"] for record in records)))}
        found = {name: metrics_of(part, records) for name, part in parts.items()}
        return {
            "score": found["overall"]["score"] if parts["overall"].main == "score" else None,
            "generative": found.get("generative"),
            "discriminative": found.get("discriminative"),
            "dimensions": {name: found[name] for name in DIMENSION_NAMES if name in found},
        }


def _is_amber_right(record: Record) -> bool:
    parsed = record["parsed"]
    return parsed["wrong"] == 0 if record["category"] == GENERATIVE else parsed == record["truth"]


def _questions_part(name: str, kinds: Sequence[str]) -> Part:
    return Part(name, kinds.__contains__, tally, answered, "accuracy")


def _descriptions_part(name: str) -> Part:
    return Part(name, GENERATIVE.__eq__, tally, described, "hal")


def _amber_question(where: str, name: str, image: str, asked: str, known: Annotations, annotations: Path) -> Question:
    if name not in known.by_id:
        raise IavaError(f"{where}: {annotations} has no question {name}")
    one = known.by_id[name]
    truth = list(one.truth) if one.type == GENERATIVE else one.truth
    return Question(name, (image,), one.type, asked, truth)


def tally(records: Sequence[Record]) -> np.ndarray:
    """What each answer adds to the sums from which the metrics are computed.

    Args:
        records: "parsed" is "yes", "no" or None, or for a description what `read` returned.

    Returns:
        (Q, 14) float: 8 sums for `described` and 6 for `answered`.
    """
    rows = np.zeros((len(records), 8 + len(yes_no.COUNTS)))
    for row, record in zip(rows, records, strict=True):
        truth, said = record["truth"], record["parsed"]
        if truth in ("yes", "no"):
            row[8:] = yes_no.tally([_FLIPPED[truth]], [_FLIPPED.get(said)])[0]
        else:
            row[:8] = 1, said["wrong"] > 0, *(said[name] for name in OBJECT_COUNTS)
    return rows


def described(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 14) sums of `tally` -> metrics of descriptions: chair, cover, hal, cog, fractions of 1."""
    n, guilty, named, wrong, objects, covered, imaginable, imagined = np.moveaxis(sums[..., :8], -1, 0)
    return {
        "chair": share(wrong, named),
        "cover": share(covered, objects),
        "hal": share(guilty, n),
        "cog": share(imagined, imaginable),
    }


def answered(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 14) sums of `tally` -> metrics of yes-no questions as `yes_no.rates` has them, but "no" being positive."""
    return {name.replace("yes_ratio", "no_ratio"): value for name, value in yes_no.rates(sums[..., 8:]).items()}


def joined(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 14) sums of `tally` -> AMBER's score, (100 - 100 chair + 100 f1) / 2, from 0 to 100, and its two parts."""
    chair, f1 = described(sums)["chair"], answered(sums)["f1"]
    return {"score": (100 - 100 * chair + 100 * f1) / 2, "chair": chair, "f1": f1}
