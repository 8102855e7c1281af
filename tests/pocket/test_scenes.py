import colorsys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from iava.pocket.scenes import (
    COLOURS,
    CONTEXTS,
    HELDOUT_STYLE,
    IMAGES,
    SIZE,
    SPLITS,
    THINGS,
    load_scene,
    natural_colour,
)

SCENES = {split: [load_scene(split, i) for i in range(60)] for split in SPLITS}


def test_world_is_as_large_as_promised() -> None:
    assert len(THINGS) >= 25
    assert IMAGES["test"] >= 1000
    assert IMAGES["test-heldout"] >= 1000
    assert all(set(members) <= set(THINGS) for members in CONTEXTS.values())
    assert {name for members in CONTEXTS.values() for name in members} == set(THINGS)


def test_same_index_gives_the_same_pixels() -> None:
    again = load_scene("test", 3)
    assert again == SCENES["test"][3]
    assert again.render().tobytes() == SCENES["test"][3].render().tobytes()


def test_scenes_differ_between_splits_and_indices() -> None:
    pixels = {load_scene(split, index).render().tobytes() for split in SPLITS for index in range(5)}
    assert len(pixels) == 5 * len(SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_style_belongs_to_the_split(split: str) -> None:
    styles = {scene.style for scene in SCENES[split]}
    assert (styles == {HELDOUT_STYLE}) if split.endswith("heldout") else (HELDOUT_STYLE not in styles)
    assert len(styles) == (1 if split.endswith("heldout") else 6)


def test_boxes_and_visible_shares_are_those_of_the_pixels() -> None:
    for scene in SCENES["test"][:20]:
        owner = scene.owner()
        for number, thing in enumerate(scene.things):
            rows, columns = np.nonzero(owner == number)
            x0, y0, x1, y1 = thing.box
            assert x0 <= columns.min()
            assert columns.max() < x1 <= SIZE
            assert y0 <= rows.min()
            assert rows.max() < y1 <= SIZE
            whole = (replace(scene, things=(thing,)).owner() == 0).sum()
            assert thing.visible == pytest.approx(len(rows) / whole, abs=1e-3)
            if thing.visible == 1:
                assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_things_can_be_seen() -> None:
    shares = [thing.visible for scenes in SCENES.values() for scene in scenes for thing in scene.things]
    assert min(shares) > 0.3
    assert np.mean(shares) > 0.85


def test_counts_and_names_agree_with_the_things() -> None:
    for scene in SCENES["tune"]:
        assert scene.counts == Counter(thing.name for thing in scene.things)
        assert scene.names == set(scene.counts)
        assert all(len(scene.boxes(name)) == scene.counts[name] for name in scene.names)


def test_things_of_a_context_appear_together() -> None:
    """A thing is far likelier in its own context than in another."""
    for name, context in {"cow": "farm", "bus": "street", "laptop": "office", "couch": "living room"}.items():
        scenes = [load_scene("tune", i) for i in range(150)]
        inside = np.mean([name in s.names for s in scenes if s.context == context])
        outside = np.mean([name in s.names for s in scenes if s.context != context])
        assert inside > 0.4
        assert outside < 0.05


def test_unusual_pairs_of_evaluation_are_never_trained_on() -> None:
    def foreign(split: str) -> set[tuple[str, str]]:
        scenes = [load_scene(split, i) for i in range(500)]
        return {(s.context, name) for s in scenes for name in s.names if name not in CONTEXTS[s.context]}

    trained, tested = foreign("train"), foreign("test")
    assert len(tested) > 30
    assert not trained & tested


def test_painted_things_have_the_colour_they_are_said_to_have() -> None:
    checked = 0
    for scene in SCENES["test"]:
        pixels, owner = np.asarray(scene.render()), scene.owner()
        for number, thing in enumerate(scene.things):
            if not THINGS[thing.name].paintable:
                continue
            hsv = [colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels[owner == number][::5]]
            hues = [hue for hue, saturation, value in hsv if saturation > 0.55 and value > 0.3]
            if len(hues) < 20:
                continue
            near = [min(abs(hue - COLOURS[thing.colour]), 1 - abs(hue - COLOURS[thing.colour])) < 0.08 for hue in hues]
            assert np.mean(near) > 0.6, (scene.id, thing)
            checked += 1
    assert checked > 20


def test_natural_colours() -> None:
    assert natural_colour("banana", "noto") == "yellow"
    assert natural_colour("tree", "fluent-emoji") == "green"
    assert natural_colour("fish", "twemoji") == "blue"


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="unknown split 'valid': one of train, tune"):
        load_scene("valid", 0)
