"""POPE: is there such a thing in the image? Questions, parsers and metrics.

Evaluating Object Hallucination in Large Vision-Language Models (arXiv 2305.10355). Half of the questions ask about
things that are there; the other half about things that are not, chosen at random, by how frequent they are, or by
how often they appear together with what is there.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from iava.bench.task import Question, Task
from iava.pocket.scenes import IMAGES, Scene, load_scene

CATEGORIES = ("random", "popular", "adversarial")
COUNTS = ("n", "correct", "true_yes", "said_yes", "is_yes", "unparsed")
_POCKET_SEED = 0


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
        ValueError: if per_image is below 1, or an image lacks fewer than k kinds, so that there is nothing to ask.
    """
    if per_image < 1:
        raise ValueError(f"per_image is {per_image}: it must be at least 1")
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
            raise ValueError(f"image {image} lacks {len(absent)} of {len(universe)} kinds of objects: {k} are needed")
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
    return f"Is there {'an' if kind[0].lower() in 'aeiou' else 'a'} {kind} in the image?"


def pocket(split: str, limit: int | None = None) -> Task:
    """POPE on the pocket scenes: no download, pictures drawn when they are needed.

    Args:
        split: "tune", "tune-heldout", "test" or "test-heldout".
        limit: only the first so many images, with the questions they have without a limit. None: all.

    Raises:
        ValueError: if the split is unknown or the limit below 1.
    """
    if split not in IMAGES:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(IMAGES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: it must be at least 1")
    questions, number = _pocket_questions(split)
    wanted = set(list(number)[:limit])
    chosen = [question for question in questions if question.image in wanted]
    return Task("pope", split, chosen, lambda image: load_scene(split, number[image]).render())


@cache
def _pocket_questions(split: str) -> tuple[list[Question], dict[str, int]]:
    scenes = [load_scene(split, index) for index in range(IMAGES[split])]
    by_id = {scene.id: scene for scene in scenes}
    names = {scene.id: scene.names for scene in scenes}
    questions = build(names, seed=_POCKET_SEED, region=lambda image, kind: fair_region(by_id[image], kind))
    return questions, {scene.id: scene.index for scene in scenes}


def fair_region(scene: Scene, kind: str) -> Region:
    """The boxes of a kind; where it is absent, those of a present one, drawn at random but always the same.

    No box for what is absent would tell the answer.
    """
    drawn = random.Random(f"{scene.id} {kind}").choice(sorted(scene.names))
    return tuple(scene.boxes(kind if kind in scene.names else drawn))


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
        "accuracy": _share(correct, n),
        "precision": _share(true_yes, said_yes),
        "recall": _share(true_yes, is_yes),
        "f1": _share(2 * true_yes, said_yes + is_yes),
        "yes_ratio": _share(said_yes, n),
        "unparsed": _share(unparsed, n),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


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


def auc(margins: Sequence[float], truths: Sequence[str]) -> float | None:
    """The chance that a question with truth "yes" has a larger yes-no margin than one with "no"; ties count half.

    Returns:
        0 to 1; None if one of the two truths does not occur.
    """
    yes = np.array([truth == "yes" for truth in truths], dtype=bool)
    positives, negatives = int(yes.sum()), int((~yes).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(margins)
    return float((ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives))
