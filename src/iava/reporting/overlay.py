"""What a page needs to lay attention over a picture, ready for JSON; `paint.js` does the painting.

Arrays travel as float32 in base64, so that the page computes with the very numbers that Python had.
"""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from iava.lvlm.answers import Answer
from iava.methods.select import ROUNDING, spread

SIDE = 900
"""Pixels of the longer side of a picture on a page; larger ones are made smaller."""


def reading(answer: Answer, size: tuple[int, int], *, each_layer: bool = True) -> dict[str, Any] | None:
    """What a method read off a picture, or None if it read no attention under two instructions.

    Args:
        answer: asked with explain=True.
        size: (width, height) of the picture that was asked about.
        each_layer: whether the attention of each decoder layer is wanted, beside their mean.

    Returns:
        "tokens", how many image tokens there are; "maps", the attention over the chosen layers and that of each layer,
        as "general" and "query" (N) with what `spread` says of the former; the criteria as answered ("top_i" as a
        count, "lam", "rounding") and the indices they "selected"; "boxes" (N, 4) in shares of width and height, or
        None, and "sheets" of them; "looks" of a Q-Former's queries, or None; "instruction", "negative" and "layers"
        as set.
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
    boxes, looks, settings = explanation.boxes, explanation.looks, answer.settings
    return {
        "tokens": len(general),
        "maps": [_map(*pair) for pair in pairs],
        "top_i": explanation.top_i,
        "lam": explanation.lam,
        "rounding": ROUNDING,
        "selected": explanation.selected.nonzero().flatten().tolist(),
        "boxes": None if boxes is None else _shares(boxes, size),
        "sheets": [] if boxes is None else sheets(boxes),
        "looks": None
        if looks is None
        else {
            "general": _packed(looks.general),
            "query": _packed(looks.query),
            "boxes": _shares(looks.boxes, size),
        },
        "instruction": settings["general"],
        "negative": settings["negative"],
        "layers": settings["layers"],
    }


def _map(general: torch.Tensor, query: torch.Tensor) -> dict[str, Any]:
    mean, std = spread(general[None], _all(general))
    return {"general": _packed(general), "query": _packed(query), "mean": float(mean), "std": float(std)}


def _all(row: torch.Tensor) -> torch.Tensor:
    return torch.ones(1, len(row), dtype=torch.bool)


def _shares(boxes: np.ndarray, size: tuple[int, int]) -> str:
    return _packed(boxes / np.tile(size, 2))


def _packed(numbers: torch.Tensor | np.ndarray) -> str:
    return base64.b64encode(np.asarray(numbers, dtype="<f4").tobytes()).decode()


def sheets(boxes: np.ndarray) -> list[list[int]]:
    """Cuts tokens into runs whose rectangles do not lie over each other: the tiles, and the overview.

    Args:
        boxes: (N, 4) float (x0, y0, x1, y1).

    Returns:
        For each run the indices of its tokens, those without area included.
    """
    runs: list[list[int]] = [[]]
    for n, box in enumerate(boxes):
        others = boxes[runs[-1]]
        shared = (np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])).clip(0).prod(axis=1)
        # Neighbours share an edge, and by rounding a little more.
        if (shared > 0.1 * (box[2:] - box[:2]).prod()).any():
            runs.append([])
        runs[-1].append(n)
    return runs


def shrunk(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at most SIDE pixels."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def data_uri(picture: Image.Image) -> str:
    """The picture inside a URL, as JPEG."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", optimize=True, quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
