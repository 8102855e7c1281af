"""The attention data hold exactly the values that Python had, and views do not overlap."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from iava import select_irrelevant
from iava.lvlm.answers import Answer, Explanation
from iava.lvlm.model import LVLM
from iava.reporting.overlay import MAX_PAGE_SIDE, attention_data, data_uri, scaled_down, views
from tests import families, tiny


def floats(text):
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


@pytest.fixture(scope="module")
def answer():
    lvlm = LVLM(tiny.model(), tiny.processor())
    return lvlm.ask(tiny.image(), "Is there a dog ?", explain=True, max_new_tokens=2, top_i=0.5, lam=-0.5)


def test_attention_is_encoded_exactly(answer):
    found = attention_data(answer, tiny.image().size)
    explanation = answer.explanation
    assert (found["tokens"], found["top_i"], found["lam"], found["negative"]) == (9, 4, -0.5, "drop")
    assert found["selected"] == np.flatnonzero(explanation.selected.numpy()).tolist()
    assert len(found["maps"]) == 1 + len(explanation.layers_general)
    pairs = [(explanation.att_general, explanation.att_query)]
    pairs += zip(explanation.layers_general, explanation.layers_query, strict=True)
    for data, (general, query) in zip(found["maps"], pairs, strict=True):
        assert (floats(data["general"]) == general.numpy()).all()
        assert (floats(data["query"]) == query.numpy()).all()
        assert data["mean"] == pytest.approx(general.double().mean().item(), rel=1e-6)
        assert data["std"] == pytest.approx(general.double().std().item(), rel=1e-5)
    width, height = tiny.image().size
    assert floats(found["boxes"]).reshape(-1, 4) * np.tile([width, height], 2) == pytest.approx(
        explanation.boxes, abs=1e-4
    )
    assert len(attention_data(answer, tiny.image().size, each_layer=False)["maps"]) == 1


def test_adaptive_criteria_are_given_as_numbers():
    lvlm = LVLM(tiny.model(), tiny.processor())
    answer = lvlm.ask(tiny.image(), "Is there a dog ?", explain=True, max_new_tokens=1, top_i="auto", lam="auto")
    found = attention_data(answer, tiny.image().size)
    assert (type(found["top_i"]), type(found["lam"])) == (int, float)
    general, query = answer.explanation.att_general[None], answer.explanation.att_query[None]
    selected = select_irrelevant(general, query, top_i=found["top_i"], lam=found["lam"])
    assert found["selected"] == np.flatnonzero(selected.numpy()).tolist() != []


def test_without_attention_there_are_no_data():
    blank = Explanation(None, None, None, None, None, None, [])
    for explanation in (blank, None):
        assert attention_data(Answer("", [], "greedy", {}, 0.0, torch.zeros(1), explanation), (40, 32)) is None


@pytest.mark.parametrize("name", ["instructblip", "blip-2"])
def test_a_q_former_has_cross_attention(name):
    lvlm = LVLM(*families.build(name))
    answer = lvlm.ask(tiny.image(), "Is there a dog ?", explain=True, max_new_tokens=1, general="Describe this image .")
    found = attention_data(answer, tiny.image().size)
    assert found["boxes"] is None
    assert found["views"] == []
    assert (
        floats(found["cross_attention"]["query"]).reshape(32, 9) == answer.explanation.cross_attention.query.numpy()
    ).all()
    whole = floats(found["cross_attention"]["boxes"]).reshape(9, 4)
    assert (whole[0].tolist(), whole[-1].tolist()) == (
        pytest.approx([0, 0, 1 / 3, 1 / 3]),
        pytest.approx([2 / 3, 2 / 3, 1, 1]),
    )


def test_views_separate_the_overview_from_the_tiles():
    tiles = np.array([[x, y, x + 10, y + 10] for y in (0, 10) for x in (0, 10)], dtype=float)
    empty = np.array([[20, 0, 20, 10]], dtype=float)
    whole = np.array([[0, 0, 20, 20]], dtype=float)
    assert views(np.concatenate([tiles, empty, whole])) == [[0, 1, 2, 3, 4], [5]]
    assert views(np.concatenate([whole, tiles[:2], empty, tiles[2:], empty])) == [[0], [1, 2, 3, 4, 5, 6]]
    # Rounding makes neighbours overlap slightly.
    assert views(tiles + np.array([0, 0, 0.2, 0.2])) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "internvl", "idefics3"])
def test_families_with_tiles_have_two_views(name):
    lvlm = LVLM(*families.build(name))
    picture = tiny.image(size=(96, 48))
    boxes = lvlm.ask(picture, "What ?", explain=True, max_new_tokens=1).explanation.boxes
    groups = views(boxes)
    assert [n for group in groups for n in group] == list(range(len(boxes)))
    areas = [(boxes[group][:, 2:] - boxes[group][:, :2]).prod(axis=1).sum() for group in groups]
    assert areas == pytest.approx([96 * 48] * 2, rel=0.02)


def test_images_are_scaled_down_and_embedded():
    small = scaled_down(Image.new("RGB", (2 * MAX_PAGE_SIDE, MAX_PAGE_SIDE), "red"))
    assert small.size == (MAX_PAGE_SIDE, MAX_PAGE_SIDE // 2)
    uri = data_uri(small)
    assert uri.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == small.size
