"""What the context of a scene alone says about which objects it shows, computed from the world's rates."""

import math
from functools import cache
from itertools import combinations

from iava.pocket.world import CONTEXTS, FOREIGN_RATE, KINDS_PER_SCENE, OBJECT_CLASSES, PREVALENCE


def log_odds(context: str, name: str) -> float:
    """The log odds that a scene of a context shows an object of a class.

    They are exact for the names that `iava.pocket.scenes` draws, except that a foreign object counts as any class
    outside the context. "train" and the other splits draw it from different halves of those.

    Args:
        context: a key of `CONTEXTS`.
        name: a key of `OBJECT_CLASSES`.
    """
    p = _probabilities(context)[name]
    return math.log(p / (1 - p))


@cache
def _probabilities(context: str) -> dict[str, float]:
    members = CONTEXTS[context]
    outside = len(OBJECT_CLASSES) - len(members)
    probabilities = dict.fromkeys(OBJECT_CLASSES, FOREIGN_RATE / outside) | dict.fromkeys(members, 0.0)
    total = 0.0
    for count in KINDS_PER_SCENE:
        for shown in combinations(members, count):
            chances = (PREVALENCE[level] if name in shown else 1 - PREVALENCE[level] for name, level in members.items())
            weight = math.prod(chances)
            total += weight
            for name in shown:
                probabilities[name] += weight
    return {name: p / total if name in members else p for name, p in probabilities.items()}
