"""Overlays cover the pixels that the tokens' boxes name, and get brighter with attention."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from iava.explain.overlay import SIDE, data_uri, heat, kept, layers, shrunk
from iava.lvlm import Explanation

BOXES = np.array([[x, y, x + 10, y + 10] for y in (0, 10) for x in (5, 15, 25)], dtype=float)


def pixels(picture):
    return np.asarray(picture).astype(int)


def test_heat_fills_each_box_and_nothing_else():
    values = np.array([0.0, 0.5, 1.0, 2.0, 0.1, 0.2])
    shown = pixels(heat(values, BOXES, (40, 20), top=1.0))
    assert shown.shape == (20, 40, 4)
    assert (shown[:, :5, 3] == 0).all()
    assert (shown[:, 35:, 3] == 0).all()
    for box in BOXES.astype(int):
        patch = shown[box[1] : box[3], box[0] : box[2]].reshape(-1, 4)
        assert (patch == patch[0]).all()
    brightness = [shown[int(y0) + 1, int(x0) + 1, :3].sum() for x0, y0, _, _ in BOXES]
    assert brightness[0] < brightness[4] < brightness[5] < brightness[1] < brightness[2] == brightness[3]


def test_what_is_kept_stays_in_sight():
    shown = pixels(kept(np.array([True, False, False, False, False, True]), BOXES, (40, 20)))
    assert (shown[1:9, 6:14, 3] == 0).all()
    assert (shown[11:19, 26:34, 3] == 0).all()
    assert (shown[1:9, 16:24, 3] > 200).all()
    assert (shown[:, :5, 3] > 200).all()


def explanation(boxes):
    return Explanation(
        att_general=torch.rand(6),
        att_query=torch.rand(6),
        layers_general=None,
        layers_query=None,
        selected=torch.tensor([True, False, True, False, False, False]),
        boxes=boxes,
        steps=[],
    )


def test_layers_follow_the_picture_when_it_is_made_smaller():
    found = layers(explanation(BOXES), (40, 20), (20, 10))
    assert (found["tokens"], found["kept"]) == (6, 2)
    shown = Image.open(io.BytesIO(base64.b64decode(found["selected"].split(",")[1])))
    assert shown.size == (20, 10)
    assert shown.getpixel((5, 2))[3] == 0
    assert shown.getpixel((10, 2))[3] > 200


def test_without_attention_or_places_there_is_nothing_to_lay_over():
    blank = Explanation(None, None, None, None, None, None, [])
    assert layers(blank, (40, 20), (40, 20)) is None
    assert layers(None, (40, 20), (40, 20)) is None
    assert set(layers(explanation(None), (40, 20), (40, 20))) == {"tokens", "kept", "top"}


def test_pictures_travel_inside_the_page():
    picture = Image.new("RGB", (2 * SIDE, SIDE), "red")
    small = shrunk(picture)
    assert small.size == (SIDE, SIDE // 2)
    assert data_uri(small).startswith("data:image/jpeg;base64,")
    assert data_uri(small.convert("RGBA")).startswith("data:image/png;base64,")
