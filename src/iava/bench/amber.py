"""AMBER: descriptions checked against annotated objects, and yes-no questions about existence, attributes, relations.

AMBER: An LLM-free Multi-dimensional Benchmark for MLLMs Hallucination Evaluation (arXiv 2311.07397). The benchmark's
script finds nouns with a tagger and takes words of similar meaning, by word vectors, as right. Here every word that
is among the benchmark's own object words counts, and its table of associated words alone says what else is right:
CHAIR and Hal come out somewhat higher, Cover and Cog somewhat lower.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iava.bench.pope import rates, tally
from iava.bench.words import singular, tokens
from iava.jsonfiles import Unique, id_of, read_json, read_text, text_of, texts_of, yes_or_no

GENERATIVE = "generative"
DIMENSIONS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
_NAMES = ("existence", "attribute", "state", "number", "action", "relation")
_FLIPPED = {"yes": "no", "no": "yes"}


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

    @property
    def words(self) -> frozenset[str]:
        """All object words; other words of a description do not count."""
        if self.associated:
            return frozenset(word for name, others in self.associated.items() for word in (name, *others))
        generative = (one for one in self.by_id.values() if one.type == GENERATIVE)
        return frozenset(word for one in generative for word in (*one.truth, *one.hallucinations))


def read_annotations(path: Path) -> Annotations:
    """Reads annotations.json and, where they lie beside it, relation.json and safe_words.txt.

    Raises:
        ValueError: if a file is broken or not what it should be.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: this must be a list of annotations")
    by_id: dict[str, Annotation] = {}
    ids = Unique("id")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: this must be an object with id, type and truth")
        name = id_of(where, row, "id")
        ids.add(where, name)
        by_id[name] = _annotation(where, row)
    relation, safe = path.with_name("relation.json"), path.with_name("safe_words.txt")
    associated = read_json(relation) if relation.exists() else {}
    if not isinstance(associated, dict):
        raise ValueError(f"{relation}: this must be an object of lists of words")
    associated = {name: texts_of(str(relation), associated, name) for name in associated}
    words = read_text(safe).split() if safe.exists() else []
    return Annotations(by_id, associated, frozenset(words))


def _annotation(where: str, row: dict[str, Any]) -> Annotation:
    kind = text_of(where, row, "type")
    if kind == GENERATIVE:
        return Annotation(kind, tuple(texts_of(where, row, "truth")), tuple(texts_of(where, row, "hallu")))
    if kind not in DIMENSIONS:
        raise ValueError(f"{where}: unknown type {kind!r}: use generative or one of {', '.join(DIMENSIONS)}")
    return Annotation(kind, yes_or_no(where, row, "truth"))


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
    by_id = annotations.by_id
    told = [(by_id[name], text) for name, text in responses.items() if by_id[name].type == GENERATIVE]
    asked = [(by_id[name], parse(text)) for name, text in responses.items() if by_id[name].type != GENERATIVE]
    generative = _generative(told, annotations) if told else None
    discriminative = _yes_no(asked) if asked else None
    dimensions = {
        name: _yes_no(some)
        for name in _NAMES
        if (some := [(one, answer) for one, answer in asked if name in DIMENSIONS[one.type]])
    }
    total = None
    if generative and discriminative:
        total = (100 - 100 * generative["chair"] + 100 * discriminative["f1"]) / 2
    return {"score": total, "generative": generative, "discriminative": discriminative, "dimensions": dimensions}


def _yes_no(asked: Sequence[tuple[Annotation, str | None]]) -> dict[str, float]:
    truths = [_FLIPPED[one.truth] for one, _ in asked]
    parsed = [None if answer is None else _FLIPPED[answer] for _, answer in asked]
    metrics = {name: float(value) for name, value in rates(tally(truths, parsed).sum(axis=0)).items()}
    return {"n": len(asked)} | {name.replace("yes_ratio", "no_ratio"): value for name, value in metrics.items()}


def _generative(told: Sequence[tuple[Annotation, str]], annotations: Annotations) -> dict[str, float]:
    words, totals = annotations.words, np.zeros(7)
    for one, text in told:
        named = [word for token in tokens(text) if (word := singular(token, words)) in words]
        right, imagined = (_stand_for(names, annotations) for names in (one.truth, one.hallucinations))
        wrong = [word for word in named if word not in right and word not in annotations.safe]
        counted = [word for word in named if word not in annotations.safe]
        covered = {right[word] for word in counted if word in right}
        dreamt = {imagined[word] for word in wrong if word in imagined}
        totals += (
            len(wrong),
            len(named),
            len(covered),
            len(one.truth),
            len(dreamt),
            len(one.hallucinations),
            bool(wrong),
        )
    wrong_words, all_words, covers, objects, dreams, dreamable, guilty = totals.tolist()
    return {
        "n": len(told),
        "chair": wrong_words / all_words if all_words else 0.0,
        "cover": covers / objects if objects else 0.0,
        "hal": guilty / len(told),
        "cog": dreams / dreamable if dreamable else 0.0,
    }


def _stand_for(names: Sequence[str], annotations: Annotations) -> dict[str, int]:
    """Word -> number of the object it stands for: the first that it is associated with, else the one it is."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        for word in annotations.associated.get(name, ()):
            found.setdefault(word, number)
    for number, name in enumerate(names):
        found.setdefault(name, number)
    return found
