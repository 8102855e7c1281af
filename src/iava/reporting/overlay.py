"""The attention of an answer as JSON, for pages that paint it over the image with `paint.js`.

Arrays are base64 of little-endian float32, so the page computes with exactly the values that Python had.
"""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from iava.lvlm.answers import Answer
from iava.methods.select import ROUNDING, spread

MAX_PAGE_SIDE = 900
"""Images on a page are scaled down to this many pixels on their longer side."""


def attention_data(answer: Answer, size: tuple[int, int], *, each_layer: bool = True) -> dict[str, Any] | None:
    """The attention of an answer and the selection that follows from it, ready for JSON.

    Args:
        answer: an answer with an explanation.
        size: width and height of the image in pixels.
        each_layer: whether to include the attention of each decoder layer beside the mean over the chosen layers.

    Returns:
        None if the method does not measure attention under two instructions. Otherwise a dict with

        - "tokens": the number of image tokens N.
        - "maps": the mean over the chosen layers, then each layer. A map has "general" and "query", both (N,), and
          "mean" and "std" of the former over the tokens.
        - "top_i" (a count), "lam", "rounding": the selection criteria that the answer used.
        - "selected": the indices of the selected tokens.
        - "boxes": (N, 4) rectangles as fractions of width and height, or None if tokens are not patches.
        - "views": the indices of the tokens of each view of the image (see `views`).
        - "cross_attention": for a Q-Former "general" and "query", both (N, P), and "boxes" (P, 4); otherwise None.
        - "instruction", "negative", "layers": the method's settings.
    """
    explanation = answer.explanation
    if explanation is None or explanation.att_general is None or explanation.att_query is None:
        return None
    general, query = explanation.att_general, explanation.att_query
    assert explanation.selected is not None
    pairs = [(general, query)]
    if each_layer:
        assert explanation.layers_general is not None
        assert explanation.layers_query is not None
        pairs += zip(explanation.layers_general, explanation.layers_query, strict=True)
    boxes, cross_attention, settings = explanation.boxes, explanation.cross_attention, answer.settings
    return {
        "tokens": len(general),
        "maps": [_map(*pair) for pair in pairs],
        "top_i": explanation.top_i,
        "lam": explanation.lam,
        "rounding": ROUNDING,
        "selected": explanation.selected.nonzero().flatten().tolist(),
        "boxes": None if boxes is None else _encoded_boxes(boxes, size),
        "views": [] if boxes is None else views(boxes),
        "cross_attention": None
        if cross_attention is None
        else {
            "general": _encoded(cross_attention.general),
            "query": _encoded(cross_attention.query),
            "boxes": _encoded_boxes(cross_attention.boxes, size),
        },
        "instruction": settings["general"],
        "negative": settings["negative"],
        "layers": settings["layers"],
    }


def _map(general: torch.Tensor, query: torch.Tensor) -> dict[str, Any]:
    mean, std = spread(general[None], torch.ones(1, len(general), dtype=torch.bool))
    return {"general": _encoded(general), "query": _encoded(query), "mean": float(mean), "std": float(std)}


def _encoded_boxes(boxes: np.ndarray, size: tuple[int, int]) -> str:
    return _encoded(boxes / np.tile(size, 2))


def _encoded(numbers: torch.Tensor | np.ndarray) -> str:
    return base64.b64encode(np.asarray(numbers, dtype="<f4").tobytes()).decode()


def views(boxes: np.ndarray) -> list[list[int]]:
    """Splits tokens, in their order, into views of the image, such as the tiles and the overview.

    Within a view, no token's rectangle overlaps another's.

    Args:
        boxes: (N, 4) float (x0, y0, x1, y1).

    Returns:
        The token indices of each view, including tokens without area.
    """
    groups: list[list[int]] = [[]]
    for n, box in enumerate(boxes):
        others = boxes[groups[-1]]
        shared = (np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])).clip(0).prod(axis=1)
        # Neighbours share an edge, and rounding makes them overlap slightly.
        if (shared > 0.1 * (box[2:] - box[:2]).prod()).any():
            groups.append([])
        groups[-1].append(n)
    return groups


def scaled_down(image: Image.Image) -> Image.Image:
    """A copy of the image with at most MAX_PAGE_SIDE pixels on its longer side."""
    small = image.copy()
    small.thumbnail((MAX_PAGE_SIDE, MAX_PAGE_SIDE))
    return small


def data_uri(image: Image.Image) -> str:
    """The image as a JPEG data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", optimize=True, quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
