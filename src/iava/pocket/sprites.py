"""The objects of a scene and their sprites."""

import colorsys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from iava.pocket.world import ART_STYLES, COLOURS, OBJECT_CLASSES

ART = Path(__file__).with_name("art.webp")
CELL = 96  # pixels of one sprite in the art file


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


def transformed_sprite(one: SceneObject, style: str) -> Image.Image:
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


def opaque_mask(one: SceneObject, style: str) -> np.ndarray:
    """(height, width) bool of an object's frame, True for opaque pixels."""
    return np.asarray(transformed_sprite(one, style).getchannel("A")) > 127


@cache
def coarse_mask(name: str, style: str, width: int, height: int) -> np.ndarray:
    """(height, width) bool, True where a sprite of this size is opaque."""
    alpha = _sprite(name, style, None).getchannel("A").resize((width, height), Image.Resampling.BOX)
    return np.asarray(alpha) > 127


@cache
def _art() -> Image.Image:
    with Image.open(ART) as sprites:
        return sprites.convert("RGBA")


@cache
def _sprite(name: str, style: str, colour: str | None, hue_steps: int = 0) -> Image.Image:
    """A sprite of the art file, recoloured if `colour` is given, with its hues rotated by steps."""
    column, row = list(OBJECT_CLASSES).index(name), ART_STYLES.index(style)
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
