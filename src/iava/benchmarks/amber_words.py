"""AMBER's words: which objects a description names, and which of them are wrong.

Two readings share the counts. `read` is this project's own and needs nothing. `read_official` does what the
benchmark's script does: nouns by NLTK's tagger, and words whose vectors in a spaCy model are similar count as the same.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from iava.benchmarks import nltk_words
from iava.errors import IavaError
from iava.jsonfiles import Unique, id_of, read_json, read_text, text_of, texts_of, yes_or_no
from iava.words import noun_like, singular, tokens

GENERATIVE = "generative"
DIMENSIONS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
OBJECT_COUNTS = ("named", "wrong", "objects", "covered", "imaginable", "imagined")
"""What a reading counts.

named: object words. wrong: those that are neither in the image nor safe. objects: those in the image. covered: those of
them that were named. imaginable: objects that people would imagine. imagined: those of them that were named.
"""
SPACY_MODEL = "en_core_web_lg"
_SIMILAR = 0.8

Similar = Callable[[str, str], bool]
"""Whether two words mean the same."""


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
        """All object words. Other words of a description do not count."""
        return frozenset(word for name, others in self.associated.items() for word in (name, *others))


def read_annotations(path: Path) -> Annotations:
    """Reads annotations.json, relation.json beside it, and safe_words.txt if it is there.

    Raises:
        IavaError: if a file is missing, broken or not what it should be.
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
    if not relation.exists():
        raise IavaError(f"{relation} is missing: AMBER's numbers are wrong without it, put it beside {path.name}")
    associated = read_json(relation)
    if not isinstance(associated, dict):
        raise IavaError(f"{relation}: this must be an object of lists of words")
    associated = {name: texts_of(str(relation), associated, name) for name in associated}
    return Annotations(by_id, associated, frozenset(read_text(safe).split() if safe.exists() else []))


def _annotation(where: str, row: dict[str, Any]) -> Annotation:
    kind = text_of(where, row, "type")
    if kind == GENERATIVE:
        return Annotation(kind, tuple(texts_of(where, row, "truth")), tuple(texts_of(where, row, "hallu")))
    if kind not in DIMENSIONS:
        raise IavaError(f"{where}: unknown type {kind!r}: use generative or one of {', '.join(DIMENSIONS)}")
    return Annotation(kind, yes_or_no(where, row, "truth"))


def read(text: str, one: Annotation, known: Annotations) -> dict[str, int]:
    """Counts what a description says, as OBJECT_COUNTS. Words that are verbs where they stand do not count."""
    words = tokens(text)
    named = [
        name
        for place, token in enumerate(words)
        if (name := singular(token, known.words)) in known.words and noun_like(words, place)
    ]
    return count(named, one, known, lambda *_: False)


def read_official(text: str, one: Annotation, known: Annotations, similar: Similar) -> dict[str, int]:
    """Counts what a description says, as OBJECT_COUNTS, as the benchmark's script does.

    Raises:
        IavaError: if NLTK or its data is missing.
    """
    named = [word for word in nltk_words.nouns(text) if word in known.words]
    return count(named, one, known, similar)


def count(named: Sequence[str], one: Annotation, known: Annotations, similar: Similar) -> dict[str, int]:
    """Counts the object words of a description, as OBJECT_COUNTS.

    Args:
        named: the object words, in their order.
        similar: words that mean the same as an object that is there are right.
    """
    right, imagined = (_stand_for(names, known) for names in (one.truth, one.hallucinations))
    wrong, covered, dreamt = 0, set(), set()
    for word in named:
        if word in known.safe:
            continue
        if word in right:
            covered.add(right[word])
            continue
        # A word may stand for an imagined object and still be right, if it is similar to an object that is there.
        alike = next((other for other in imagined if similar(word, other)), None)
        dreamt |= {imagined[other] for other in (word, alike) if other in imagined}
        alike = next((other for other in right if similar(word, other)), None)
        if alike is None:
            wrong += 1
        else:
            covered.add(right[alike])
    numbers = (len(named), wrong, len(one.truth), len(covered), len(one.hallucinations), len(dreamt))
    return dict(zip(OBJECT_COUNTS, numbers, strict=True))


def _stand_for(names: Sequence[str], known: Annotations) -> dict[str, int]:
    """Word -> number of the object it stands for: the first that it is associated with, else the one it is."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        for word in known.associated.get(name, ()):
            found.setdefault(word, number)
    for number, name in enumerate(names):
        found.setdefault(name, number)
    return found


def spacy_similarity(model: str) -> Similar:
    """Whether the vectors of two words have a cosine above 0.8.

    Args:
        model: of spaCy; a name, or a folder.

    Raises:
        IavaError: if spaCy or the model is missing.
    """
    try:
        import spacy
    except ImportError:
        raise IavaError("the official pipeline needs spaCy: pip install 'iava[amber]'") from None
    try:
        pipeline = spacy.load(model)
    except OSError:
        raise IavaError(
            f"spaCy has no model {model!r}: python -m spacy download {SPACY_MODEL}, or name another by --spacy-model"
        ) from None
    document = lru_cache(maxsize=None)(pipeline)

    @cache
    def similar(word: str, other: str) -> bool:
        with warnings.catch_warnings():
            # A word without a vector is similar to none, in the official script, too.
            warnings.filterwarnings("ignore", message=r"\[W008\]")
            return document(word).similarity(document(other)) > _SIMILAR

    return similar
