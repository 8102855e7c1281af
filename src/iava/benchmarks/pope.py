"""POPE: is there such a thing in the image? Questions, parsers and metrics.

Evaluating Object Hallucination in Large Vision-Language Models (arXiv 2305.10355). Half of the questions ask about
things that are there; the other half about things that are not, chosen at random, by how frequent they are, or by
how often they appear together with what is there.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from iava.benchmarks.task import Question
from iava.errors import IavaError
from iava.metrics.stats import share
from iava.words import with_article

CATEGORIES = ("random", "popular", "adversarial")
COUNTS = ("n", "correct", "true_yes", "said_yes", "is_yes", "unparsed")


Region = tuple[tuple[float, float, float, float], ...]


def build(
    objects: Mapping[str, set[str]],
    *,
    per_image: int = 3,
    seed: int,
    region: Callable[[str, str], Region | None] = lambda image, kind: None,
) -> list[Question]:
    """POPE's three samplings over images whose objects are known.

    Every image gets k = min(per_image, kinds of objects in it) positives, the same in all three categories, and k
    negatives in each: uniform among the absent kinds ("random"), the most frequent of the whole set among the absent
    ("popular"), those seen most often together with the image's own objects ("adversarial"; equal: the more frequent).

    Args:
        objects: image id -> kinds of objects in it. Frequencies are taken over all of it.
        per_image: questions of each truth an image and category.
        seed: for the positives and the random negatives. An image's draws depend on its position only.
        region: the boxes that answer the question about a kind in an image, where they are known.

    Returns:
        Questions image by image, category by category, yes and no in turn.

    Raises:
        IavaError: if per_image is below 1, or an image lacks fewer than k kinds, so that there is nothing to ask.
    """
    if per_image < 1:
        raise IavaError(f"per_image is {per_image}: it must be at least 1")
    frequency = Counter(kind for kinds in objects.values() for kind in kinds)
    together: Counter[tuple[str, str]] = Counter()
    for kinds in objects.values():
        together.update(pair for a, b in combinations(sorted(kinds), 2) for pair in ((a, b), (b, a)))
    universe = sorted(frequency)
    questions = []
    for position, (image, kinds) in enumerate(objects.items()):
        rng = np.random.default_rng([seed, position])
        present, absent = sorted(kinds), [kind for kind in universe if kind not in kinds]
        k = min(per_image, len(present))
        if len(absent) < k:
            raise IavaError(f"image {image} lacks {len(absent)} of {len(universe)} kinds of objects: {k} are needed")
        positives = _drawn(rng, present, k)
        popular = sorted(absent, key=lambda kind: (-frequency[kind], kind))
        company = {kind: sum(together[other, kind] for other in kinds) for kind in absent}
        adversarial = sorted(absent, key=lambda kind: (-company[kind], -frequency[kind], kind))
        negatives = {"random": _drawn(rng, absent, k), "popular": popular[:k], "adversarial": adversarial[:k]}
        for category in CATEGORIES:
            pairs = zip(positives, negatives[category], strict=True)
            asked = [answered for yes, no in pairs for answered in ((yes, "yes"), (no, "no"))]
            questions += [
                Question(f"{image}-{category}-{number}", image, category, wording(kind), truth, region(image, kind))
                for number, (kind, truth) in enumerate(asked, start=1)
            ]
    return questions


def _drawn(rng: np.random.Generator, kinds: Sequence[str], k: int) -> list[str]:
    return [kinds[i] for i in rng.permutation(len(kinds))[:k]]


def wording(kind: str) -> str:
    """POPE's question about a kind of object: "Is there an apple in the image?"."""
    return f"Is there {with_article(kind)} in the image?"


def parse_word(text: str) -> str | None:
    """Word-level: "yes" or "no" if exactly one of the two words occurs, else None (as VLMEvalKit reads answers)."""
    words = set(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()))
    return {(True, False): "yes", (False, True): "no"}.get(("yes" in words, "no" in words))


def parse_substring(text: str) -> str | None:
    """As the papers' scripts do: "no" if these letters occur anywhere ("not", "know"), else "yes" likewise."""
    return next((answer for answer in ("no", "yes") if answer in text.lower()), None)


def parse_exact(text: str) -> str | None:
    """As lmms-eval reads it: the whole answer is "yes" or "no", in any case; "No." is neither."""
    answer = text.strip().lower()
    return answer if answer in ("yes", "no") else None


PARSERS: dict[str, Callable[[str], str | None]] = {
    "word": parse_word,
    "substring": parse_substring,
    "exact": parse_exact,
}


def tally(truths: Iterable[str], parsed: Iterable[str | None]) -> np.ndarray:
    """(Q, 6) float: what each question adds to the COUNTS from which `rates` computes the metrics."""
    rows = [
        (1, answer == truth, answer == truth == "yes", answer == "yes", truth == "yes", answer is None)
        for truth, answer in zip(truths, parsed, strict=True)
    ]
    return np.array(rows, dtype=float).reshape(-1, len(COUNTS))


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """POPE's metrics as fractions of 1, "yes" being the positive class; an unparsed answer is a wrong one.

    Args:
        counts: (..., 6) sums of `tally`.

    Returns:
        accuracy, precision, recall, f1, yes_ratio and unparsed, each of shape (...). 0 where nothing was counted.
    """
    n, correct, true_yes, said_yes, is_yes, unparsed = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    return {
        "accuracy": share(correct, n),
        "precision": share(true_yes, said_yes),
        "recall": share(true_yes, is_yes),
        "f1": share(2 * true_yes, said_yes + is_yes),
        "yes_ratio": share(said_yes, n),
        "unparsed": share(unparsed, n),
    }


def score(categories: Sequence[str], truths: Sequence[str], parsed: Sequence[str | None]) -> dict[str, Any]:
    """POPE's numbers for a file of answers.

    Args:
        categories, truths, parsed: of each question; at least one.

    Returns:
        overall, and categories: for each its own: n and the metrics of `rates`.
    """
    counts = tally(truths, parsed)
    names = sorted(set(categories), key=lambda name: (name not in CATEGORIES, categories.index(name)))
    of = {name: np.array([category == name for category in categories]) for name in names}
    return {"overall": _metrics(counts), "categories": {name: _metrics(counts[of[name]]) for name in names}}


def _metrics(counts: np.ndarray) -> dict[str, float]:
    return {"n": len(counts)} | {name: float(value) for name, value in rates(counts.sum(axis=0)).items()}
