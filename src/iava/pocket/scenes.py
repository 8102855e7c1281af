"""The pocket world: seeded pictures of everyday things, with everything about them known.

A scene belongs to a context (kitchen, street, farm, ...) whose things co-occur strongly, is drawn in one emoji style
on a background that mostly fits the context, and knows its things' boxes, colours and counts. The same split and index
give the same scene and the same pixels.

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
CELL = 96  # pixels of one drawing in the art file
SIZE = 192  # pixels of a scene's side
COARSE = 4  # pixels of a cell of the grid on which places are tried

STYLES = ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "emojione", "fxemoji", "twemoji")
HELDOUT_STYLE = "twemoji"
SPLITS = {"train": 0, "tune": 1, "tune-heldout": 2, "test": 3, "test-heldout": 4}
IMAGES = {"tune": 400, "tune-heldout": 400, "test": 1000, "test-heldout": 1000}
WORLD_SEED = 20250318


@dataclass(frozen=True)
class Kind:
    """What is drawn under one name: its icon in the art sources, and whether it may be painted in any colour."""

    icon: str
    paintable: bool = False


THINGS = {
    "cow": Kind("cow"),
    "pig": Kind("pig"),
    "horse": Kind("horse"),
    "sheep": Kind("ewe"),
    "dog": Kind("dog"),
    "cat": Kind("cat"),
    "rabbit": Kind("rabbit"),
    "fish": Kind("fish"),
    "crab": Kind("crab"),
    "butterfly": Kind("butterfly", paintable=True),
    "tractor": Kind("tractor"),
    "car": Kind("automobile", paintable=True),
    "bus": Kind("bus", paintable=True),
    "bicycle": Kind("bicycle", paintable=True),
    "boat": Kind("sailboat"),
    "tree": Kind("deciduous-tree"),
    "flower": Kind("sunflower"),
    "mushroom": Kind("mushroom"),
    "pizza": Kind("pizza"),
    "bread": Kind("bread"),
    "apple": Kind("red-apple"),
    "banana": Kind("banana"),
    "fork": Kind("fork-and-knife"),
    "cup": Kind("hot-beverage"),
    "umbrella": Kind("umbrella", paintable=True),
    "ball": Kind("soccer-ball"),
    "laptop": Kind("laptop"),
    "book": Kind("closed-book", paintable=True),
    "pencil": Kind("pencil"),
    "scissors": Kind("scissors", paintable=True),
    "clock": Kind("alarm-clock", paintable=True),
    "couch": Kind("couch-and-lamp"),
    "guitar": Kind("guitar"),
}

# How readily a thing appears in a context: 3 = a staple, 2 = common, 1 = now and then.
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

COLOURS = {"red": 0.0, "yellow": 0.145, "green": 0.34, "blue": 0.61, "purple": 0.8}
# Ground and far colours that fit a context, as hue, saturation and value with their spread.
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
class Thing:
    """One drawn thing: its name, box (x0, y0, x1, y1) in pixels of the scene, colour, and how much of it is seen."""

    name: str
    box: tuple[int, int, int, int]
    frame: tuple[int, int, int, int]  # the rectangle into which its drawing is stretched
    colour: str
    visible: float  # share of its painted pixels that nothing covers, 0..1
    turned: float  # degrees
    mirrored: bool
    shade: float  # brightness factor
    tint: int = 0  # steps by which its hues are turned; practice pictures only


@dataclass(frozen=True)
class Scene:
    """A picture that is fully known. `things` are listed from back to front."""

    split: str
    index: int
    context: str
    style: str
    things: tuple[Thing, ...]

    @property
    def id(self) -> str:
        return f"{self.split}-{self.index:05d}"

    @property
    def names(self) -> set[str]:
        return {thing.name for thing in self.things}

    @property
    def counts(self) -> Counter[str]:
        return Counter(thing.name for thing in self.things)

    def boxes(self, name: str) -> list[tuple[int, int, int, int]]:
        return [thing.box for thing in self.things if thing.name == name]

    def owner(self) -> np.ndarray:
        """(SIZE, SIZE) int8: the index in `things` of what each pixel shows, -1 for the background."""
        return _owner(self.things, [_mask(thing, self.style) for thing in self.things])

    def render(self) -> Image.Image:
        """The picture, RGB, SIZE x SIZE pixels."""
        canvas = Image.fromarray(_background(self))
        for thing in self.things:
            picture = _drawing(thing, self.style)
            canvas.paste(picture, thing.frame[:2], picture)
        return canvas


def load_scene(split: str, index: int) -> Scene:
    """Scene number `index` (0, 1, ...) of a split: "train", "tune", "tune-heldout", "test" or "test-heldout".

    The held-out splits are drawn in a style that training never shows. One scene in four of every split has one thing
    that does not belong to its context; the pairs (context, foreign thing) of "train" never appear in other splits.
    """
    if split not in SPLITS:
        raise IavaError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([WORLD_SEED, SPLITS[split], index])
    context = str(rng.choice(list(CONTEXTS)))
    styles = [HELDOUT_STYLE] if split.endswith("heldout") else [s for s in STYLES if s != HELDOUT_STYLE]
    style = str(rng.choice(styles))
    names = _kinds(rng, context, split == "train")
    wanted = [name for name in names for _ in range(1 + int(rng.choice(3, p=[0.76, 0.18, 0.06])))]
    things = _placed(rng, wanted[:7], style)
    return Scene(split, index, context, style, tuple(things))


def practice_scene(index: int) -> Scene:
    """A crowded picture in a training style for which no context counts: things of any kind on any background."""
    rng = np.random.default_rng([WORLD_SEED, len(SPLITS), index])
    style = str(rng.choice([s for s in STYLES if s != HELDOUT_STYLE]))
    wanted = [str(name) for name in rng.choice(list(THINGS), size=10)]
    context = str(rng.choice(list(CONTEXTS)))
    return Scene("practice", index, context, style, tuple(_placed(rng, wanted, style, vary=True)))


def _kinds(rng: np.random.Generator, context: str, training: bool) -> list[str]:
    members = CONTEXTS[context]
    while True:
        names = [name for name, level in members.items() if rng.random() < PREVALENCE[level]]
        if 3 <= len(names) <= 4:
            break
    if rng.random() < 0.25:
        foreign = [
            name
            for number, name in enumerate(THINGS)
            if name not in members and (number + list(CONTEXTS).index(context)) % 2 == training
        ]
        names.append(str(rng.choice(foreign)))
    return [str(name) for name in rng.permutation(names)]


def _placed(rng: np.random.Generator, wanted: list[str], style: str, vary: bool = False) -> list[Thing]:
    """Things at random places, each with about 60 % of its painted pixels in sight; what finds no place is left out.

    With `vary`, drawings are stretched and their hues turned a little, which stands in for more styles.
    """
    owner = np.full((SIZE // COARSE, SIZE // COARSE), -1, dtype=np.int8)
    drafts: list[Thing] = []
    areas: list[int] = []
    for name in wanted:
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
                drafts.append(replace(draft, tint=int(rng.integers(-2, 3))) if vary else draft)
                break
    return _measured(drafts, style)


def _draft(rng: np.random.Generator, name: str, style: str, frame: tuple[int, int, int, int]) -> Thing:
    colour = str(rng.choice(list(COLOURS))) if THINGS[name].paintable else natural_colour(name, style)
    turned, mirrored, shade = (
        float(rng.uniform(-14, 14)),
        bool(rng.random() < 0.5),
        float(rng.uniform(0.85, 1.1)),
    )
    return Thing(name, frame, frame, colour, 1.0, turned, mirrored, shade)


def _measured(drafts: list[Thing], style: str) -> list[Thing]:
    """The drafts with the tight box and the visible share of what is really drawn."""
    masks = [_mask(draft, style) for draft in drafts]
    shown = np.bincount(_owner(drafts, masks).ravel() + 1, minlength=len(drafts) + 1)[1:]
    things = []
    for draft, mask, seen in zip(drafts, masks, shown, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = draft.frame[:2]
        box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        things.append(replace(draft, box=box, visible=round(float(seen / mask.sum()), 3)))
    return things


def _mask(thing: Thing, style: str) -> np.ndarray:
    return np.asarray(_drawing(thing, style).getchannel("A")) > 127


def _owner(things: Sequence[Thing], masks: list[np.ndarray]) -> np.ndarray:
    owner = np.full((SIZE, SIZE), -1, dtype=np.int8)
    for number, (thing, mask) in enumerate(zip(things, masks, strict=True)):
        x0, y0, x1, y1 = thing.frame
        owner[y0:y1, x0:x1][mask] = number
    return owner


def _drawing(thing: Thing, style: str) -> Image.Image:
    width, height = thing.frame[2] - thing.frame[0], thing.frame[3] - thing.frame[1]
    picture = _sprite(thing.name, style, thing.colour if THINGS[thing.name].paintable else None, thing.tint)
    angle, half = np.deg2rad(thing.turned), CELL / 2
    right, down = CELL / width, CELL / height
    flip = -1 if thing.mirrored else 1
    a, b = flip * right * np.cos(angle), flip * down * np.sin(angle)
    d, e = -right * np.sin(angle), down * np.cos(angle)
    matrix = (a, b, half - (a * width + b * height) / 2, d, e, half - (d * width + e * height) / 2)
    picture = picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return picture.point([min(255, int(v * thing.shade)) for v in range(256)] * 3 + list(range(256)))


@cache
def _coarse_mask(name: str, style: str, width: int, height: int) -> np.ndarray:
    alpha = _sprite(name, style, None).getchannel("A").resize((width, height), Image.Resampling.BOX)
    return np.asarray(alpha) > 127


@cache
def _sheet() -> Image.Image:
    with Image.open(ART) as sheet:
        return sheet.convert("RGBA")


@cache
def _sprite(name: str, style: str, colour: str | None, tint: int = 0) -> Image.Image:
    column, row = list(THINGS).index(name), STYLES.index(style)
    cell = _sheet().crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    if colour is None and tint == 0:
        return cell
    alpha = cell.getchannel("A")
    hsv = np.array(cell.convert("RGB").convert("HSV"))
    if colour is not None:
        vivid = hsv[..., 1] > 70
        hsv[..., 0][vivid] = round(COLOURS[colour] * 255)
        hsv[..., 1][vivid] = np.maximum(hsv[..., 1][vivid], 150)
    hsv[..., 0] += np.uint8(8 * tint % 256)
    painted = Image.fromarray(hsv, "HSV").convert("RGB")
    painted.putalpha(alpha)
    return painted


@cache
def natural_colour(name: str, style: str) -> str:
    """The colour that most of an unpainted drawing has: one of COLOURS, "brown", "black", "grey" or "white"."""
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
    split = SPLITS.get(scene.split, len(SPLITS))
    rng = np.random.default_rng([WORLD_SEED, split, scene.index, 1])
    context = scene.context if rng.random() < 0.8 else str(rng.choice(list(CONTEXTS)))
    near, far = (_jittered(rng, hsv) for hsv in GROUNDS[context])
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    pattern = rng.integers(4)
    if pattern == 0:  # a horizon
        blend = (y > rng.uniform(0.3, 0.6)).astype(np.float32)
    elif pattern == 1:  # a soft gradient
        angle = rng.uniform(0, np.pi)
        blend = np.clip(x * np.cos(angle) + y * np.sin(angle), 0, 1)
    elif pattern == 2:  # tiles
        tiles = rng.integers(3, 7)
        blend = 0.35 + 0.3 * ((np.floor(x * tiles) + np.floor(y * tiles)) % 2)
    else:  # soft patches
        coarse = Image.fromarray((rng.random((5, 5)) * 255).astype(np.uint8))
        blend = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    picture = far + (near - far) * blend[..., None]
    picture = picture + 0.012 * rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _jittered(rng: np.random.Generator, hsv: tuple[float, float, float]) -> np.ndarray:
    hue, saturation, value = hsv + rng.normal(0, [0.02, 0.05, 0.05])
    colour = colorsys.hsv_to_rgb(hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1)))
    return np.array(colour, dtype=np.float32)
