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
from iava.pocket.sprites import SceneObject, coarse_mask, natural_colour, opaque_mask, transformed_sprite
from iava.pocket.world import (
    COLOURS,
    CONTEXTS,
    GROUNDS,
    HELDOUT_STYLE,
    OBJECT_CLASSES,
    PREVALENCE,
    SIZE,
    STYLES,
    WORLD_SEED,
)

COARSE = 4  # pixels of a cell of the grid on which objects are placed
SPLIT_SEEDS = {"train": 0, "tune": 1, "tune-heldout": 2, "test": 3, "test-heldout": 4}
_PRACTICE_SEED = 5
IMAGES = {"tune": 400, "tune-heldout": 400, "test": 1000, "test-heldout": 1000}
"""Split -> its number of images. The split "train" has no end."""


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
            mask = coarse_mask(name, style, width // COARSE, height // COARSE)
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
