"""The classes, contexts, colours and styles of the pocket world."""

from dataclasses import dataclass

SIZE = 192  # pixels on a side of a scene

ART_STYLES = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione", "fxemoji", "twemoji")
HELDOUT_STYLE = "twemoji"
WORLD_SEED = 20250318


@dataclass(frozen=True)
class ObjectClass:
    """An object class: its icon in the art sources, and whether its sprite may be recoloured."""

    icon: str
    recolourable: bool = False


OBJECT_CLASSES = {
    "cow": ObjectClass("cow"),
    "pig": ObjectClass("pig"),
    "horse": ObjectClass("horse"),
    "sheep": ObjectClass("ewe"),
    "dog": ObjectClass("dog"),
    "cat": ObjectClass("cat"),
    "rabbit": ObjectClass("rabbit"),
    "fish": ObjectClass("fish"),
    "crab": ObjectClass("crab"),
    "butterfly": ObjectClass("butterfly", recolourable=True),
    "tractor": ObjectClass("tractor"),
    "car": ObjectClass("automobile", recolourable=True),
    "bus": ObjectClass("bus", recolourable=True),
    "bicycle": ObjectClass("bicycle", recolourable=True),
    "boat": ObjectClass("sailboat"),
    "tree": ObjectClass("deciduous-tree"),
    "flower": ObjectClass("sunflower"),
    "mushroom": ObjectClass("mushroom"),
    "pizza": ObjectClass("pizza"),
    "bread": ObjectClass("bread"),
    "apple": ObjectClass("red-apple"),
    "banana": ObjectClass("banana"),
    "fork": ObjectClass("fork-and-knife"),
    "cup": ObjectClass("hot-beverage"),
    "umbrella": ObjectClass("umbrella", recolourable=True),
    "ball": ObjectClass("soccer-ball"),
    "laptop": ObjectClass("laptop"),
    "book": ObjectClass("closed-book", recolourable=True),
    "pencil": ObjectClass("pencil"),
    "scissors": ObjectClass("scissors", recolourable=True),
    "clock": ObjectClass("alarm-clock", recolourable=True),
    "couch": ObjectClass("couch-and-lamp"),
    "guitar": ObjectClass("guitar"),
}

# How often an object class appears in a context: 3 is a staple, 2 is common, 1 is rare.
CONTEXTS: dict[str, dict[str, int]] = {
    "farm": {"cow": 3, "tractor": 3, "pig": 2, "horse": 2, "sheep": 2, "dog": 2, "tree": 1},
    "street": {"car": 3, "bus": 3, "bicycle": 2, "dog": 2, "umbrella": 2, "tree": 2, "clock": 1},
    "kitchen": {"fork": 3, "cup": 3, "pizza": 2, "bread": 2, "apple": 2, "banana": 2, "clock": 1},
    "beach": {"umbrella": 3, "boat": 3, "fish": 2, "crab": 2, "ball": 2, "dog": 1},
    "office": {"laptop": 3, "pencil": 3, "book": 2, "scissors": 2, "clock": 2, "cup": 2},
    "garden": {"tree": 3, "flower": 3, "butterfly": 2, "rabbit": 2, "mushroom": 2, "cat": 2, "apple": 1},
    "living room": {"couch": 3, "cat": 3, "guitar": 2, "book": 2, "dog": 2, "clock": 2},
}
PREVALENCE = {3: 0.62, 2: 0.36, 1: 0.2}
"""Level of `CONTEXTS` -> probability of appearing in a scene of that context."""
KINDS_PER_SCENE = (3, 4)
"""How many classes of its context a scene shows. Other draws are repeated."""
FOREIGN_RATE = 0.25
"""The share of scenes with an object that does not belong to the context."""

COLOURS = {"red": 0.0, "yellow": 0.145, "green": 0.34, "blue": 0.61, "purple": 0.8}
"""Colours of recoloured sprites -> hue."""
# Near and far colour of the background of each context, as hue, saturation and value.
GROUNDS = {
    "farm": ((0.28, 0.45, 0.75), (0.55, 0.25, 0.95)),
    "street": ((0.6, 0.04, 0.6), (0.58, 0.12, 0.85)),
    "kitchen": ((0.09, 0.25, 0.85), (0.12, 0.08, 0.95)),
    "beach": ((0.13, 0.35, 0.93), (0.53, 0.45, 0.9)),
    "office": ((0.08, 0.3, 0.7), (0.6, 0.06, 0.88)),
    "garden": ((0.3, 0.55, 0.6), (0.25, 0.25, 0.9)),
    "living room": ((0.05, 0.35, 0.6), (0.1, 0.2, 0.9)),
}
