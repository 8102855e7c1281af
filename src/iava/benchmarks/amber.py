"""AMBER: descriptions checked against annotated objects, and yes-no questions about existence, attributes, relations.

AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation (arXiv 2311.07397). The benchmark's
script finds nouns with a tagger and takes words of similar meaning, by word vectors, as right. Here every word that
is among the benchmark's own object words counts, and its table of associated words alone says what else is right:
CHAIR and Hal come out somewhat higher, Cover and Cog somewhat lower.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks import pope
from iava.errors import IavaError
from iava.jsonfiles import Unique, id_of, read_json, read_text, text_of, texts_of, yes_or_no
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
NAMES = ("existence", "attribute", "state", "number", "action", "relation")
_FLIPPED = {"yes": "no", "no": "yes"}
_DESCRIBED = ("named", "wrong", "objects", "covered", "imaginable", "imagined")


@dataclass(frozen=True)
class Annotation:
    """What is known about one question.

    Args:
        type: "generative", or a key of `DIMENSIONS`.
        truth: "yes" or "no"; generative: the objects in the image.
        hallucinations: generative: what people would imagine to be there too.
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
    """What a description says, counted.

    Returns:
        named: object words; wrong: those that are neither there nor safe; objects: in the image; covered: those that
        were named; imaginable: what people would imagine; imagined: what of it was named.
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


def tally(truths: Sequence[Any], parsed: Sequence[Any]) -> np.ndarray:
    """What each question adds to the sums from which the metrics are computed.

    Args:
        truths: "yes", "no", or anything else for a description.
        parsed: "yes", "no" or None; of descriptions what `read` returned.

    Returns:
        (Q, 14) float: 8 sums for `described` and 6 for `answered`.
    """
    rows = np.zeros((len(truths), 8 + len(pope.COUNTS)))
    for row, truth, said in zip(rows, truths, parsed, strict=True):
        if truth in ("yes", "no"):
            row[8:] = pope.tally([_FLIPPED[truth]], [_FLIPPED.get(said)])[0]
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
    """(..., 14) sums of `tally` -> metrics of yes-no questions as `pope.rates` has them, but "no" being positive."""
    return {name.replace("yes_ratio", "no_ratio"): value for name, value in pope.rates(sums[..., 8:]).items()}


def joined(sums: np.ndarray) -> dict[str, np.ndarray]:
    """(..., 14) sums of `tally` -> AMBER's score, (100 - 100 chair + 100 f1) / 2, from 0 to 100, and its two parts."""
    chair, f1 = described(sums)["chair"], answered(sums)["f1"]
    return {"score": (100 - 100 * chair + 100 * f1) / 2, "chair": chair, "f1": f1}


def score(responses: Mapping[str, str], annotations: Annotations, parse: Callable[[str], str | None]) -> dict[str, Any]:
    """AMBER's numbers for the questions that were answered.

    Args:
        responses: question id -> response; every id must be annotated.
        parse: reads "yes", "no" or None from a response to a yes-no question.

    Returns:
        generative: n, chair (object words that are wrong), cover (annotated objects that were named), hal (responses
        with a wrong object), cog (imagined objects that were named). discriminative: n, accuracy, precision, recall,
        f1 with "no" as the positive class, no_ratio, unparsed; dimensions: the same for each. All are fractions of 1;
        a part that was not answered is None. score: (100 - 100 chair + 100 f1) / 2, from 0 to 100, or None.
    """
    ones = [annotations.by_id[name] for name in responses]
    told = np.array([one.type == GENERATIVE for one in ones], dtype=bool)
    parsed = [
        read(text, one, annotations) if one.type == GENERATIVE else parse(text)
        for one, text in zip(ones, responses.values(), strict=True)
    ]
    counts = tally([one.truth for one in ones], parsed)

    def metrics(chosen: np.ndarray, rates: Callable[[np.ndarray], dict[str, np.ndarray]]) -> dict[str, float] | None:
        if not chosen.any():
            return None
        values = rates(counts[chosen].sum(axis=0))
        return {"n": int(chosen.sum())} | {name: float(value) for name, value in values.items()}

    dimensions = {
        name: metrics(np.array([name in DIMENSIONS.get(one.type, ()) for one in ones], dtype=bool), answered)
        for name in NAMES
    }
    return {
        "score": float(joined(counts.sum(axis=0))["score"]) if 0 < told.sum() < len(told) else None,
        "generative": metrics(told, described),
        "discriminative": metrics(~told, answered),
        "dimensions": {name: found for name, found in dimensions.items() if found},
    }
