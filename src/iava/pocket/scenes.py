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

import numpy as np
from PIL import Image

from iava.errors import IavaError
from iava.pocket.degradations import SCENE_DEGRADATIONS
from iava.pocket.sprites import SceneObject, coarse_mask, natural_colour, opaque_mask, transformed_sprite
from iava.pocket.world import (
    ART_STYLES,
    COLOURS,
    CONTEXTS,
    FOREIGN_RATE,
    GROUNDS,
    HELDOUT_STYLE,
    KINDS_PER_SCENE,
    OBJECT_CLASSES,
    PREVALENCE,
    SIZE,
    WORLD_SEED,
)

SPLIT_SEEDS = {"train": 0, "tune": 1, "tune-heldout": 2, "test": 3, "test-heldout": 4}
_PRACTICE_SEED = 5
WEAK_EVIDENCE = (*SCENE_DEGRADATIONS, "small")
"""Kinds of weak evidence. "tune-blur" and its like show the scenes of "tune" with weaker evidence."""
IMAGES = {"tune": 400, "tune-heldout": 400, "test": 1000, "test-heldout": 1000}
IMAGES |= {f"{base}-{kind}": IMAGES[base] for base in ("tune", "test") for kind in WEAK_EVIDENCE}
"""Split -> its number of images. The split "train" has no end."""


@dataclass(frozen=True)
class Placement:
    """How objects are placed.

    Args:
        sides: the least and the largest side of an object in pixels, the latter excluded.
        visible: the least share of an object that no other object may cover.
        crowded: whether an object is placed beside the previous one, so that objects partly cover each other.
        cell: side in pixels of the cells of a grid on which covered shares are estimated.
        vary: whether sprites are stretched and their hues rotated slightly, which imitates further styles.
    """

    sides: tuple[int, int] = (46, 86)
    visible: float = 0.62
    crowded: bool = False
    cell: int = 4
    vary: bool = False


SMALL = Placement(sides=(25, 40), visible=0.5, crowded=True, cell=1)


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
        return _segmentation(self.objects, [opaque_mask(one, self.style) for one in self.objects])

    def render(self) -> Image.Image:
        """The image, RGB, SIZE x SIZE pixels."""
        canvas = Image.fromarray(_background(self))
        for one in self.objects:
            sprite = transformed_sprite(one, self.style)
            canvas.paste(sprite, one.frame[:2], sprite)
        base, kind = base_split(self.split)
        if kind not in SCENE_DEGRADATIONS:
            return canvas
        return SCENE_DEGRADATIONS[kind](canvas, np.random.default_rng([WORLD_SEED, SPLIT_SEEDS[base], self.index, 2]))


def base_split(split: str) -> tuple[str, str]:
    """The split with normal evidence, and the kind of weak evidence or "": "test-blur" -> ("test", "blur")."""
    base, _, kind = split.rpartition("-")
    return (base, kind) if split in IMAGES and kind in WEAK_EVIDENCE else (split, "")


def load_scene(split: str, index: int) -> Scene:
    """The scene with number `index` (from 0) of a split.

    Splits are "train", "tune", "tune-heldout", "test" and "test-heldout". The held-out splits use a style that training
    never shows. In every split, one scene in four has an object that does not belong to its context. The pairs of
    context and foreign object in "train" never occur in other splits.

    Splits with weak evidence are "tune-" and "test-" with a suffix of `WEAK_EVIDENCE`. They show the scene of "tune" or
    "test" with the same index: degraded ("blur", "lowres", "noise", "fog", "dark"), or with small objects that partly
    cover each other ("small").

    Raises:
        IavaError: if the split is unknown.
    """
    base, kind = base_split(split)
    if base not in SPLIT_SEEDS:
        raise IavaError(f"unknown split {split!r}: one of train, {', '.join(IMAGES)}")
    rng = np.random.default_rng([WORLD_SEED, SPLIT_SEEDS[base], index])
    context = str(rng.choice(list(CONTEXTS)))
    styles = [HELDOUT_STYLE] if split.endswith("heldout") else [s for s in ART_STYLES if s != HELDOUT_STYLE]
    style = str(rng.choice(styles))
    names = _object_names(rng, context, split == "train")
    repeated = [name for name in names for _ in range(1 + int(rng.choice(3, p=[0.76, 0.18, 0.06])))]
    layout = SMALL if kind == "small" else Placement()
    return Scene(split, index, context, style, tuple(_place(rng, repeated[:7], style, layout)))


def practice_scene(index: int) -> Scene:
    """A crowded image in a training style without a context: objects of any class on any background."""
    rng = np.random.default_rng([WORLD_SEED, _PRACTICE_SEED, index])
    style = str(rng.choice([s for s in ART_STYLES if s != HELDOUT_STYLE]))
    names = [str(name) for name in rng.choice(list(OBJECT_CLASSES), size=10)]
    context = str(rng.choice(list(CONTEXTS)))
    return Scene("practice", index, context, style, tuple(_place(rng, names, style, Placement(vary=True))))


def _object_names(rng: np.random.Generator, context: str, training: bool) -> list[str]:
    """The object classes of a scene, in random order."""
    members = CONTEXTS[context]
    while True:
        names = [name for name, level in members.items() if rng.random() < PREVALENCE[level]]
        if len(names) in KINDS_PER_SCENE:
            break
    if rng.random() < FOREIGN_RATE:
        foreign = [
            name
            for number, name in enumerate(OBJECT_CLASSES)
            if name not in members and (number + list(CONTEXTS).index(context)) % 2 == training
        ]
        names.append(str(rng.choice(foreign)))
    return [str(name) for name in rng.permutation(names)]


def _place(rng: np.random.Generator, names: list[str], style: str, layout: Placement) -> list[SceneObject]:
    """Objects at random positions. Objects that fit nowhere are left out."""
    cell = layout.cell
    owner = np.full((SIZE // cell, SIZE // cell), -1, dtype=np.int8)
    drafts: list[SceneObject] = []
    areas: list[int] = []
    for name in names:
        for _ in range(12):
            side = int(rng.integers(*layout.sides))
            stretch = float(rng.uniform(0.75, 1.3)) if layout.vary else 1.0
            width, height = min(SIZE, round(side * stretch**0.5)), min(SIZE, round(side / stretch**0.5))
            x, y = _place_frame(rng, width, height, drafts[-1].frame if layout.crowded and drafts else None)
            mask = coarse_mask(name, style, width // cell, height // cell)
            trial = owner.copy()
            top, left = y // cell, x // cell
            trial[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = len(drafts)
            total = [*areas, int(mask.sum())]
            if all(np.count_nonzero(trial == i) >= layout.visible * area for i, area in enumerate(total)):
                owner, areas = trial, total
                draft = _draw_object(rng, name, style, (x, y, x + width, y + height))
                drafts.append(replace(draft, hue_steps=int(rng.integers(-2, 3))) if layout.vary else draft)
                break
    return _with_visibility(drafts, style)


def _place_frame(
    rng: np.random.Generator, width: int, height: int, neighbour: tuple[int, int, int, int] | None
) -> tuple[int, int]:
    """The upper left corner of a frame: anywhere, or at most 0.7 sides from the centre of the neighbour's frame."""
    if neighbour is None:
        return int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
    x0, y0, x1, y1 = neighbour
    x = round((x0 + x1 - width) / 2 + width * rng.uniform(-0.7, 0.7))
    y = round((y0 + y1 - height) / 2 + height * rng.uniform(-0.7, 0.7))
    return min(max(x, 0), SIZE - width), min(max(y, 0), SIZE - height)


def _draw_object(rng: np.random.Generator, name: str, style: str, frame: tuple[int, int, int, int]) -> SceneObject:
    colour = str(rng.choice(list(COLOURS))) if OBJECT_CLASSES[name].recolourable else natural_colour(name, style)
    rotation, mirrored, brightness = rng.uniform(-14, 14), rng.random() < 0.5, rng.uniform(0.85, 1.1)
    return SceneObject(name, frame, frame, colour, 1.0, float(rotation), bool(mirrored), float(brightness))


def _with_visibility(drafts: list[SceneObject], style: str) -> list[SceneObject]:
    """The objects with their tight boxes and visible shares, measured on the rendered pixels."""
    masks = [opaque_mask(draft, style) for draft in drafts]
    visible = np.bincount(_segmentation(drafts, masks).ravel() + 1, minlength=len(drafts) + 1)[1:]
    objects = []
    for draft, mask, pixels in zip(drafts, masks, visible, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = draft.frame[:2]
        box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        objects.append(replace(draft, box=box, visible=round(float(pixels / mask.sum()), 3)))
    return objects


def _segmentation(objects: Sequence[SceneObject], masks: list[np.ndarray]) -> np.ndarray:
    segmentation = np.full((SIZE, SIZE), -1, dtype=np.int8)
    for number, (one, mask) in enumerate(zip(objects, masks, strict=True)):
        x0, y0, x1, y1 = one.frame
        segmentation[y0:y1, x0:x1][mask] = number
    return segmentation


def _background(scene: Scene) -> np.ndarray:
    seed = SPLIT_SEEDS.get(base_split(scene.split)[0], _PRACTICE_SEED)
    rng = np.random.default_rng([WORLD_SEED, seed, scene.index, 1])
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
