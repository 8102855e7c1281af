"""The pocket world: seeded scenes of everyday objects with complete annotations.

A scene belongs to a context (kitchen, street, farm, ...) whose objects co-occur strongly. It is drawn in one emoji
style on a background that usually fits the context. It knows the boxes, colours and counts of its objects. Equal split
and index give equal scenes and equal pixels.

    scene = load_scene("test", 7)
    scene.names              # {"cow", "tractor", "dog"}
    scene.render()           # PIL image, 192 x 192
"""

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from iava.errors import IavaError

ART = Path(__file__).with_name("art.webp")
CELL = 96  # pixels of one sprite in the art file
SIZE = 192  # pixels on a side of a scene
COARSE = 4  # pixels of a cell of the grid on which objects are placed

STYLES = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione", "fxemoji", "twemoji")
HELDOUT_STYLE = "twemoji"
SPLIT_SEEDS = {"train": 0, "tune": 1, "tune-heldout": 2, "test": 3, "test-heldout": 4}
_PRACTICE_SEED = 5
IMAGES = {"tune": 400, "tune-heldout": 400, "test": 1000, "test-heldout": 1000}
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


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Args:
        name: its class, a key of `OBJECT_CLASSES`.
        box: the tight box (x0, y0, x1, y1) in pixels of the scene.
        frame: the rectangle to which its sprite is stretched.
        colour: of `COLOURS`, or its natural colour.
        visible: share of its pixels that no other object covers, 0 to 1.
        rotation: degrees.
        mirrored: whether left and right are swapped.
        brightness: factor.
        hue_steps: rotation of its hues in steps, for practice images only.
    """

    name: str
    box: tuple[int, int, int, int]
    frame: tuple[int, int, int, int]
    colour: str
    visible: float
    rotation: float
    mirrored: bool
    brightness: float
    hue_steps: int = 0


@dataclass(frozen=True)
class Scene:
    """A scene with its annotations. `objects` are listed from back to front."""

    split: str
    index: int
    context: str
    style: str
    objects: tuple[SceneObject, ...]

    @property
    def id(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.objects}

    @property
    def counts(self) -> Counter[str]:
        return Counter(one.name for one in self.objects)

    def boxes(self, name: str) -> list[tuple[int, int, int, int]]:
        return [one.box for one in self.objects if one.name == name]

    def segmentation(self) -> np.ndarray:
        """(SIZE, SIZE) int8: the index in `objects` of the object at each pixel, -1 for the background."""
        return _segmentation(self.objects, [_mask(one, self.style) for one in self.objects])

    def render(self) -> Image.Image:
        """The image, RGB, SIZE x SIZE pixels."""
        canvas = Image.fromarray(_background(self))
        for one in self.objects:
            sprite = _transformed_sprite(one, self.style)
            canvas.paste(sprite, one.frame[:2], sprite)
        return canvas


def load_scene(split: str, index: int) -> Scene:
    """The scene with number `index` (from 0) of a split: "train", "tune", "tune-heldout", "test" or "test-heldout".

    The held-out splits use a style that training never shows. In every split, one scene in four has an object that does
    not belong to its context. The pairs of context and foreign object in "train" never occur in other splits.

    Raises:
        IavaError: if the split is unknown.
    """
    if split not in SPLIT_SEEDS:
        raise IavaError(f"unknown split {split!r}: one of {', '.join(SPLIT_SEEDS)}")
    rng = np.random.default_rng([WORLD_SEED, SPLIT_SEEDS[split], index])
    context = str(rng.choice(list(CONTEXTS)))
    styles = [HELDOUT_STYLE] if split.endswith("heldout") else [s for s in STYLES if s != HELDOUT_STYLE]
    style = str(rng.choice(styles))
    names = _object_names(rng, context, split == "train")
    repeated = [name for name in names for _ in range(1 + int(rng.choice(3, p=[0.76, 0.18, 0.06])))]
    return Scene(split, index, context, style, tuple(_place(rng, repeated[:7], style)))


def practice_scene(index: int) -> Scene:
    """A crowded image in a training style without a context: objects of any class on any background."""
    rng = np.random.default_rng([WORLD_SEED, _PRACTICE_SEED, index])
    style = str(rng.choice([s for s in STYLES if s != HELDOUT_STYLE]))
    names = [str(name) for name in rng.choice(list(OBJECT_CLASSES), size=10)]
    context = str(rng.choice(list(CONTEXTS)))
    return Scene("practice", index, context, style, tuple(_place(rng, names, style, vary=True)))


def _object_names(rng: np.random.Generator, context: str, training: bool) -> list[str]:
    """The object classes of a scene, in random order."""
    members = CONTEXTS[context]
    while True:
        names = [name for name, level in members.items() if rng.random() < PREVALENCE[level]]
        if 3 <= len(names) <= 4:
            break
    if rng.random() < 0.25:
        foreign = [
            name
            for number, name in enumerate(OBJECT_CLASSES)
            if name not in members and (number + list(CONTEXTS).index(context)) % 2 == training
        ]
        names.append(str(rng.choice(foreign)))
    return [str(name) for name in rng.permutation(names)]


def _place(rng: np.random.Generator, names: list[str], style: str, vary: bool = False) -> list[SceneObject]:
    """Objects at random positions, each at least about 60 % visible. Objects that fit nowhere are left out.

    With `vary`, sprites are stretched and their hues rotated slightly, which imitates further styles.
    """
    owner = np.full((SIZE // COARSE, SIZE // COARSE), -1, dtype=np.int8)
    drafts: list[SceneObject] = []
    areas: list[int] = []
    for name in names:
        for _ in range(12):
            side = int(rng.integers(46, 86))
            stretch = float(rng.uniform(0.75, 1.3)) if vary else 1.0
            width, height = min(SIZE, round(side * stretch**0.5)), min(SIZE, round(side / stretch**0.5))
            x, y = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
            mask = _coarse_mask(name, style, width // COARSE, height // COARSE)
            trial = owner.copy()
            top, left = y // COARSE, x // COARSE
            trial[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = len(drafts)
            total = [*areas, int(mask.sum())]
            if all(np.count_nonzero(trial == i) >= 0.62 * area for i, area in enumerate(total)):
                owner, areas = trial, total
                draft = _draft(rng, name, style, (x, y, x + width, y + height))
                drafts.append(replace(draft, hue_steps=int(rng.integers(-2, 3))) if vary else draft)
                break
    return _with_visibility(drafts, style)


def _draft(rng: np.random.Generator, name: str, style: str, frame: tuple[int, int, int, int]) -> SceneObject:
    colour = str(rng.choice(list(COLOURS))) if OBJECT_CLASSES[name].recolourable else natural_colour(name, style)
    rotation, mirrored, brightness = rng.uniform(-14, 14), rng.random() < 0.5, rng.uniform(0.85, 1.1)
    return SceneObject(name, frame, frame, colour, 1.0, float(rotation), bool(mirrored), float(brightness))


def _with_visibility(drafts: list[SceneObject], style: str) -> list[SceneObject]:
    """The objects with their tight boxes and visible shares, measured on the rendered pixels."""
    masks = [_mask(draft, style) for draft in drafts]
    visible = np.bincount(_segmentation(drafts, masks).ravel() + 1, minlength=len(drafts) + 1)[1:]
    objects = []
    for draft, mask, pixels in zip(drafts, masks, visible, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = draft.frame[:2]
        box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        objects.append(replace(draft, box=box, visible=round(float(pixels / mask.sum()), 3)))
    return objects


def _mask(one: SceneObject, style: str) -> np.ndarray:
    return np.asarray(_transformed_sprite(one, style).getchannel("A")) > 127


def _segmentation(objects: Sequence[SceneObject], masks: list[np.ndarray]) -> np.ndarray:
    segmentation = np.full((SIZE, SIZE), -1, dtype=np.int8)
    for number, (one, mask) in enumerate(zip(objects, masks, strict=True)):
        x0, y0, x1, y1 = one.frame
        segmentation[y0:y1, x0:x1][mask] = number
    return segmentation


def _transformed_sprite(one: SceneObject, style: str) -> Image.Image:
    """The sprite of an object, RGBA, stretched to its frame, rotated and with its brightness."""
    width, height = one.frame[2] - one.frame[0], one.frame[3] - one.frame[1]
    sprite = _sprite(one.name, style, one.colour if OBJECT_CLASSES[one.name].recolourable else None, one.hue_steps)
    angle, half = np.deg2rad(one.rotation), CELL / 2
    right, down = CELL / width, CELL / height
    flip = -1 if one.mirrored else 1
    a, b = flip * right * np.cos(angle), flip * down * np.sin(angle)
    d, e = -right * np.sin(angle), down * np.cos(angle)
    matrix = (a, b, half - (a * width + b * height) / 2, d, e, half - (d * width + e * height) / 2)
    sprite = sprite.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return sprite.point([min(255, int(v * one.brightness)) for v in range(256)] * 3 + list(range(256)))


@cache
def _coarse_mask(name: str, style: str, width: int, height: int) -> np.ndarray:
    alpha = _sprite(name, style, None).getchannel("A").resize((width, height), Image.Resampling.BOX)
    return np.asarray(alpha) > 127


@cache
def _art() -> Image.Image:
    with Image.open(ART) as sprites:
        return sprites.convert("RGBA")


@cache
def _sprite(name: str, style: str, colour: str | None, hue_steps: int = 0) -> Image.Image:
    """A sprite of the art file, recoloured if `colour` is given, with its hues rotated by steps."""
    column, row = list(OBJECT_CLASSES).index(name), STYLES.index(style)
    cell = _art().crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    if colour is None and hue_steps == 0:
        return cell
    alpha = cell.getchannel("A")
    hsv = np.array(cell.convert("RGB").convert("HSV"))
    if colour is not None:
        vivid = hsv[..., 1] > 70
        hsv[..., 0][vivid] = round(COLOURS[colour] * 255)
        hsv[..., 1][vivid] = np.maximum(hsv[..., 1][vivid], 150)
    hsv[..., 0] += np.uint8(8 * hue_steps % 256)
    recoloured = Image.fromarray(hsv, "HSV").convert("RGB")
    recoloured.putalpha(alpha)
    return recoloured


@cache
def natural_colour(name: str, style: str) -> str:
    """The most frequent colour of an original sprite: one of `COLOURS`, "brown", "black", "grey" or "white"."""
    cell = np.asarray(_sprite(name, style, None))
    pixels = cell[cell[..., 3] > 127][:, :3] / 255.0
    votes: Counter[str] = Counter(_colour_name(*pixel) for pixel in pixels[::7])
    return votes.most_common(1)[0][0]


def _colour_name(r: float, g: float, b: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
    if saturation < 0.2:
        return "black" if value < 0.3 else "grey" if value < 0.8 else "white"
    if 0.02 < hue < 0.12 and value < 0.75:
        return "brown"
    return min(COLOURS, key=lambda c: min(abs(hue - COLOURS[c]), 1 - abs(hue - COLOURS[c])))


def _background(scene: Scene) -> np.ndarray:
    split = SPLIT_SEEDS.get(scene.split, _PRACTICE_SEED)
    rng = np.random.default_rng([WORLD_SEED, split, scene.index, 1])
    context = scene.context if rng.random() < 0.8 else str(rng.choice(list(CONTEXTS)))
    near, far = (_jittered(rng, hsv) for hsv in GROUNDS[context])
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    pattern = rng.integers(4)
    if pattern == 0:  # horizon
        blend = (y > rng.uniform(0.3, 0.6)).astype(np.float32)
    elif pattern == 1:  # gradient
        angle = rng.uniform(0, np.pi)
        blend = np.clip(x * np.cos(angle) + y * np.sin(angle), 0, 1)
    elif pattern == 2:  # tiles
        tiles = rng.integers(3, 7)
        blend = 0.35 + 0.3 * ((np.floor(x * tiles) + np.floor(y * tiles)) % 2)
    else:  # smooth patches
        coarse = Image.fromarray((rng.random((5, 5)) * 255).astype(np.uint8))
        blend = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    pixels = far + (near - far) * blend[..., None]
    pixels = pixels + 0.012 * rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _jittered(rng: np.random.Generator, hsv: tuple[float, float, float]) -> np.ndarray:
    hue, saturation, value = hsv + rng.normal(0, [0.02, 0.05, 0.05])
    colour = colorsys.hsv_to_rgb(hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1)))
    return np.array(colour, dtype=np.float32)
