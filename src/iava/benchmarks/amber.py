"""AMBER: descriptions checked against annotated objects, and yes-no questions about existence, attributes, relations.

AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation (arXiv 2311.07397). The benchmark's
script finds nouns with a tagger and takes words of similar meaning, by word vectors, as right. Here every word that
is among the benchmark's own object words counts, and its table of associated words alone says what else is right.
CHAIR and Hal come out somewhat higher, Cover and Cog somewhat lower.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iava.benchmarks import yes_no
from iava.benchmarks.benchmark import Benchmark, Predictions, is_texts, metrics_of, needed, unopened
from iava.benchmarks.parsers import YES_NO, Parser
from iava.benchmarks.sources.files import files_of, folder_task, images_of
from iava.benchmarks.task import Located, Question, Task
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
from iava.metrics.parts import Part, Record
from iava.metrics.stats import share
from iava.words import singular, tokens

GENERATIVE = "generative"
DIMENSIONS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
DIMENSION_NAMES = ("existence", "attribute", "state", "number", "action", "relation")
_FLIPPED = {"yes": "no", "no": "yes"}
_DESCRIBED = ("named", "wrong", "objects", "covered", "imaginable", "imagined")


def official(text: str, _: Any = None) -> str | None:
    """As the benchmark's own script: only the literal texts "Yes" and "No" count."""
    return {"Yes": "yes", "No": "no"}.get(text)


class AMBER(Benchmark):
    """AMBER's descriptions and yes-no questions."""

    source = "data/ of github.com/junyangwang0410/AMBER and image/ with its images"
    asks_yes_no = True
    parsers: ClassVar[Mapping[str, Parser]] = {**YES_NO, "official": official}
    max_new_tokens = 512
    score_files = ("annotations",)

    def load(self, folder: Path) -> Task:
        """Reads the queries {id, image, query} with their annotations. The category is the annotation's type."""
        queries = files_of(folder, "data/query/query_all.json")[0]
        annotations = files_of(folder, "data/annotations.json")[0]
        known = read_annotations(annotations)
        ids = Unique("id")
        located: Located = []
        for where, row in entries(queries, {"query": read_json(queries)}, "query"):
            name = id_of(where, row, "id")
            ids.add(where, name)
            image, asked = text_of(where, row, "image"), words_of(where, row, "query")
            located.append((where, _question(where, name, image, asked, known, annotations)))
        return folder_task(self.name, "test", located, images_of(folder), _reader(known))

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall, generative, discriminative and its dimensions, as far as they were asked."""
        kinds = [name for name in categories if name != GENERATIVE]
        dimensions = {name: [kind for kind in kinds if name in DIMENSIONS[kind]] for name in DIMENSION_NAMES}
        parts = [_asked(name, some) for name, some in {"discriminative": kinds, **dimensions}.items() if some]
        if GENERATIVE in categories:
            parts.insert(0, _described("generative"))
        if kinds and GENERATIVE in categories:
            return [Part("overall", lambda _: True, tally, joined, "score"), *parts]
        return [_asked("overall", kinds) if kinds else _described("overall"), *parts]

    def is_answer(self, row: Record) -> bool:
        """Descriptions have a list of objects and the counts of `read`; all others are answered with yes or no."""
        if row["category"] != GENERATIVE:
            return row["category"] in DIMENSIONS and super().is_answer(row)
        counts = row.get("parsed")
        there = isinstance(counts, dict) and all(isinstance(counts.get(name), int) for name in _DESCRIBED)
        return there and is_texts(row["truth"])

    def right(self, records: Sequence[Record]) -> float:
        """The share of right answers. A description is right if it names no wrong object."""
        return sum(map(_is_right, records)) / len(records)

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads JSON lines {id, response}, with the file "annotations"."""
        annotations = needed(self.name, files, "annotations")
        known = read_annotations(annotations)
        ids = Unique("id")
        questions, texts, places = [], [], []
        for where, row in read_lines(path):
            name = id_of(where, row, "id")
            ids.add(where, name)
            questions.append(_question(where, name, name, name, known, annotations))
            texts.append(text_of(where, row, "response"))
            places.append(where)
        return Predictions(Task(self.name, "test", questions, unopened, _reader(known)), texts, places)

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


def _is_right(record: Record) -> bool:
    parsed = record["parsed"]
    return parsed["wrong"] == 0 if record["category"] == GENERATIVE else parsed == record["truth"]


def _asked(name: str, kinds: Sequence[str]) -> Part:
    return Part(name, kinds.__contains__, tally, answered, "accuracy")


def _described(name: str) -> Part:
    return Part(name, GENERATIVE.__eq__, tally, described, "hal")


def _question(where: str, name: str, image: str, asked: str, known: "Annotations", annotations: Path) -> Question:
    if name not in known.by_id:
        raise IavaError(f"{where}: {annotations} has no question {name}")
    one = known.by_id[name]
    truth = list(one.truth) if one.type == GENERATIVE else one.truth
    return Question(name, (image,), one.type, asked, truth)


def _reader(known: "Annotations") -> Callable[[Question, str], Any]:
    return lambda question, text: read(text, known.by_id[question.id], known)


@dataclass(frozen=True)
class Annotation:
    """The annotation of one question.

    Args:
        type: "generative", or a key of `DIMENSIONS`.
        truth: "yes" or "no"; generative: the objects in the image.
        hallucinations: generative: objects that people would imagine to be there, too.
    """

    type: str
    truth: Any
    hallucinations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """The benchmark's annotations.

    Args:
        by_id: question id -> annotation.
        associated: object -> words that may stand for it.
        safe: words that are never wrong.
    """

    by_id: Mapping[str, Annotation]
    associated: Mapping[str, Sequence[str]]
    safe: frozenset[str]

    @cached_property
    def words(self) -> frozenset[str]:
        """All object words; other words of a description do not count."""
        if self.associated:
            return frozenset(word for name, others in self.associated.items() for word in (name, *others))
        generative = (one for one in self.by_id.values() if one.type == GENERATIVE)
        return frozenset(word for one in generative for word in (*one.truth, *one.hallucinations))


def read_annotations(path: Path) -> Annotations:
    """Reads annotations.json and, where they lie beside it, relation.json and safe_words.txt.

    Raises:
        IavaError: if a file is broken or not what it should be.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise IavaError(f"{path}: this must be a list of annotations")
    by_id: dict[str, Annotation] = {}
    ids = Unique("id")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise IavaError(f"{where}: this must be an object with id, type and truth")
        name = id_of(where, row, "id")
        ids.add(where, name)
        by_id[name] = _annotation(where, row)
    relation, safe = path.with_name("relation.json"), path.with_name("safe_words.txt")
    associated = read_json(relation) if relation.exists() else {}
    if not isinstance(associated, dict):
        raise IavaError(f"{relation}: this must be an object of lists of words")
    associated = {name: texts_of(str(relation), associated, name) for name in associated}
    words = read_text(safe).split() if safe.exists() else []
    return Annotations(by_id, associated, frozenset(words))


def _annotation(where: str, row: dict[str, Any]) -> Annotation:
    kind = text_of(where, row, "type")
    if kind == GENERATIVE:
        return Annotation(kind, tuple(texts_of(where, row, "truth")), tuple(texts_of(where, row, "hallu")))
    if kind not in DIMENSIONS:
        raise IavaError(f"{where}: unknown type {kind!r}: use generative or one of {', '.join(DIMENSIONS)}")
    return Annotation(kind, yes_or_no(where, row, "truth"))


def read(text: str, one: Annotation, annotations: Annotations) -> dict[str, int]:
    """Counts what a description says.

    Returns:
        named: object words. wrong: those that are neither there nor safe. objects: those in the image. covered: those
        of them that were named. imaginable: objects that people would imagine. imagined: those of them that were named.
    """
    words = annotations.words
    named = [word for token in tokens(text) if (word := singular(token, words)) in words]
    right, imagined = (_stand_for(names, annotations) for names in (one.truth, one.hallucinations))
    wrong = [word for word in named if word not in right and word not in annotations.safe]
    covered = {right[word] for word in named if word in right and word not in annotations.safe}
    dreamt = {imagined[word] for word in wrong if word in imagined}
    counts = (len(named), len(wrong), len(one.truth), len(covered), len(one.hallucinations), len(dreamt))
    return dict(zip(_DESCRIBED, counts, strict=True))


def _stand_for(names: Sequence[str], annotations: Annotations) -> dict[str, int]:
    """Word -> number of the object it stands for: the first that it is associated with, else the one it is."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        for word in annotations.associated.get(name, ()):
            found.setdefault(word, number)
    for number, name in enumerate(names):
        found.setdefault(name, number)
    return found


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
            row[:8] = 1, said["wrong"] > 0, *(said[name] for name in _DESCRIBED)
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
