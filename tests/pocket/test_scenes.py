"""Scenes are reproducible, and their annotations agree with their pixels."""

import colorsys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from iava.errors import IavaError
from iava.pocket.scenes import IMAGES, SPLIT_SEEDS, load_scene
from iava.pocket.sprites import natural_colour
from iava.pocket.world import COLOURS, CONTEXTS, HELDOUT_STYLE, OBJECT_CLASSES, SIZE

SCENES = {split: [load_scene(split, i) for i in range(60)] for split in SPLIT_SEEDS}


def test_the_world_has_the_documented_size() -> None:
    assert len(OBJECT_CLASSES) >= 25
    assert IMAGES["test"] >= 1000
    assert IMAGES["test-heldout"] >= 1000
    assert all(set(members) <= set(OBJECT_CLASSES) for members in CONTEXTS.values())
    assert {name for members in CONTEXTS.values() for name in members} == set(OBJECT_CLASSES)


def test_equal_indices_give_equal_pixels() -> None:
    again = load_scene("test", 3)
    assert again == SCENES["test"][3]
    assert again.render().tobytes() == SCENES["test"][3].render().tobytes()


def test_scenes_differ_between_splits_and_indices() -> None:
    pixels = {load_scene(split, index).render().tobytes() for split in SPLIT_SEEDS for index in range(5)}
    assert len(pixels) == 5 * len(SPLIT_SEEDS)


@pytest.mark.parametrize("split", SPLIT_SEEDS)
def test_held_out_splits_have_the_held_out_style(split: str) -> None:
    styles = {scene.style for scene in SCENES[split]}
    assert (styles == {HELDOUT_STYLE}) if split.endswith("heldout") else (HELDOUT_STYLE not in styles)
    assert len(styles) == (1 if split.endswith("heldout") else 6)


def test_boxes_and_visible_shares_match_the_pixels() -> None:
    for scene in SCENES["test"][:20]:
        segmentation = scene.segmentation()
        for number, one in enumerate(scene.objects):
            rows, columns = np.nonzero(segmentation == number)
            x0, y0, x1, y1 = one.box
            assert x0 <= columns.min()
            assert columns.max() < x1 <= SIZE
            assert y0 <= rows.min()
            assert rows.max() < y1 <= SIZE
            pixels = (replace(scene, objects=(one,)).segmentation() == 0).sum()
            assert one.visible == pytest.approx(len(rows) / pixels, abs=1e-3)
            if one.visible == 1:
                assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_objects_are_visible() -> None:
    shares = [one.visible for scenes in SCENES.values() for scene in scenes for one in scene.objects]
    assert min(shares) > 0.3
    assert np.mean(shares) > 0.85


def test_counts_and_names_agree_with_the_objects() -> None:
    for scene in SCENES["tune"]:
        assert scene.counts == Counter(one.name for one in scene.objects)
        assert scene.names == set(scene.counts)
        assert all(len(scene.boxes(name)) == scene.counts[name] for name in scene.names)


@pytest.mark.slow
def test_objects_co_occur_by_context() -> None:
    """An object is much more likely in its own context than in others."""
    for name, context in {"cow": "farm", "bus": "street", "laptop": "office", "couch": "living room"}.items():
        scenes = [load_scene("tune", i) for i in range(150)]
        inside = np.mean([name in s.names for s in scenes if s.context == context])
        outside = np.mean([name in s.names for s in scenes if s.context != context])
        assert inside > 0.4
        assert outside < 0.05


@pytest.mark.slow
def test_foreign_objects_of_evaluation_never_occur_in_training() -> None:
    def foreign(split: str) -> set[tuple[str, str]]:
        scenes = [load_scene(split, i) for i in range(500)]
        return {(s.context, name) for s in scenes for name in s.names if name not in CONTEXTS[s.context]}

    trained, tested = foreign("train"), foreign("test")
    assert len(tested) > 30
    assert not trained & tested


def test_recoloured_objects_have_the_annotated_colour() -> None:
    checked = 0
    for scene in SCENES["test"]:
        pixels, segmentation = np.asarray(scene.render()), scene.segmentation()
        for number, one in enumerate(scene.objects):
            if not OBJECT_CLASSES[one.name].recolourable:
                continue
            hsv = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels[segmentation == number][::5]]
            hues = [hue for hue, saturation, value in hsv if saturation > 0.55 and value > 0.3]
            if len(hues) < 20:
                continue
            expected = COLOURS[one.colour]
            near = [min(abs(hue - expected), 1 - abs(hue - expected)) < 0.08 for hue in hues]
            assert np.mean(near) > 0.6, (scene.id, one)
            checked += 1
    assert checked > 20


def test_natural_colours() -> None:
    assert natural_colour("banana", "noto") == "yellow"
    assert natural_colour("tree", "fluent-emoji") == "green"
    assert natural_colour("fish", "twemoji") == "blue"


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(IavaError, match="unknown split 'valid': one of train, tune"):
        load_scene("valid", 0)
