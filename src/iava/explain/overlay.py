"""Pictures to be laid over a picture: attention as heat, and what a masked branch is left with."""

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from iava.lvlm import Explanation

SIDE = 900
"""Pixels of the longer side of a picture on a page; larger ones are made smaller."""
CLIP = 0.98
"""Attention has a few sinks that would darken everything else: the scale ends at this quantile."""

_MASK = (16, 18, 24, 214)
_EDGE = (255, 190, 60, 255)


def heat(values: np.ndarray, boxes: np.ndarray, size: tuple[int, int], *, top: float) -> Image.Image:
    """Attention as a half-transparent picture: dark where there is none, bright where there is `top` or more.

    Args:
        values: (N,) at least 0.
        boxes: (N, 4) float (x0, y0, x1, y1) in pixels of a picture of this `size`.
        size: (width, height) in pixels.
        top: the value at which the scale ends, above 0.

    Returns:
        An RGBA image of this size; fully transparent outside of all boxes.
    """
    level = np.clip(np.asarray(values, dtype=float) / top, 0, 1)
    colours = (colormaps["inferno"](level) * 255).astype(int)
    colours[:, 3] = (255 * (0.36 + 0.46 * level)).astype(int)
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(_pixels(box), fill=tuple(colour.tolist()))
    return layer


def kept(selected: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Everything but the selected tokens covered, these edged.

    Args:
        selected: (N,) bool.
        boxes: (N, 4) float (x0, y0, x1, y1) in pixels of a picture of this `size`.
        size: (width, height) in pixels.

    Returns:
        An RGBA image of this size.
    """
    layer = Image.new("RGBA", size, _MASK)
    draw = ImageDraw.Draw(layer)
    edge = max(1, round(max(size) / 300))
    for box in boxes[np.asarray(selected, dtype=bool)]:
        draw.rectangle(_pixels(box), fill=(0, 0, 0, 0), outline=_EDGE, width=edge)
    return layer


def _pixels(box: np.ndarray) -> list[int]:
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    return [x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)]


def shrunk(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at most SIDE pixels."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def layers(explanation: Explanation | None, original: tuple[int, int], shown: tuple[int, int]) -> dict[str, Any] | None:
    """What a page lays over a picture of `shown` pixels; None if the method read no attention.

    Args:
        original: (width, height) of the picture that was asked about, in whose pixels the boxes are.
        shown: (width, height) of the picture on the page.

    Returns:
        "general", "query" and "selected" as data URIs (absent where tokens have no place in the picture), "tokens" and
        "kept", how many there are and how many were selected, and "top", the attention at which the scale ends.
    """
    if explanation is None or explanation.att_general is None or explanation.att_query is None:
        return None
    general, query = explanation.att_general.numpy(), explanation.att_query.numpy()
    assert explanation.selected is not None
    selected = explanation.selected.numpy()
    top = max(float(np.quantile(np.concatenate([general, query]), CLIP)), 1e-9)
    found: dict[str, Any] = {"tokens": len(selected), "kept": int(selected.sum()), "top": top}
    if explanation.boxes is None:
        return found
    boxes = explanation.boxes * np.tile(np.array(shown) / np.array(original), 2)
    return found | {
        "general": data_uri(heat(general, boxes, shown, top=top)),
        "query": data_uri(heat(query, boxes, shown, top=top)),
        "selected": data_uri(kept(selected, boxes, shown)),
    }


def data_uri(picture: Image.Image) -> str:
    """The picture inside a URL: transparent ones as PNG, others as JPEG."""
    kind = "PNG" if picture.mode == "RGBA" else "JPEG"
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=90)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
