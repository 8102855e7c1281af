"""Degradations against independent computations, and the splits that use them."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.pocket import is_scene, open_scene, pocket
from iava.errors import IavaError
from iava.pocket import degradations
from iava.pocket.scenes import IMAGES, WEAK_EVIDENCE, base_split, load_scene

CLEAN = load_scene("test", 3)


def pixels(image):
    return np.asarray(image, dtype=np.float64)


def degraded(kind):
    return pixels(load_scene(f"test-{kind}", 3).render())


def test_blur_is_gaussian():
    expected = gaussian_filter(pixels(CLEAN.render()), sigma=(2.7, 2.7, 0), mode="nearest")
    # PIL approximates the Gaussian by three box filters.
    assert np.abs(degraded("blur") - expected).mean() < 1.5
    assert np.abs(degraded("blur") - pixels(CLEAN.render())).mean() > 5


def test_low_resolution_interpolates_block_means():
    clean = pixels(CLEAN.render())
    means = clean.reshape(32, 6, 32, 6, 3).mean(axis=(1, 3))
    # Rows and columns 2 and 3 of a block of 6 lie 1/12 of a block before and behind the block's centre.
    centres = degraded("lowres").reshape(32, 6, 32, 6, 3)[1:-1, 2:4, 1:-1, 2:4].mean(axis=(1, 3))
    inner = means[1:-1, 1:-1]
    vertical = inner * 22 / 24 + (means[:-2, 1:-1] + means[2:, 1:-1]) / 24
    left = means[1:-1, :-2] * 22 / 24 + (means[:-2, :-2] + means[2:, :-2]) / 24
    right = means[1:-1, 2:] * 22 / 24 + (means[:-2, 2:] + means[2:, 2:]) / 24
    expected = vertical * 22 / 24 + (left + right) / 24
    assert np.abs(centres - expected).max() < 1.5


def test_noise_has_its_deviation_and_is_independent():
    grey = Image.new("RGB", (192, 192), (128, 128, 128))
    difference = pixels(degradations.noise(grey, np.random.default_rng(0))) - 128
    # Clipping at 0 and 255 changes values beyond 1.7 deviations only, so quartiles keep those of the normal.
    low, high = np.quantile(difference, [0.25, 0.75])
    assert (low, high) == (pytest.approx(-0.6745 * 75, abs=2), pytest.approx(0.6745 * 75, abs=2))
    correlations = np.corrcoef(difference.reshape(-1, 3).T)
    assert np.abs(correlations - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(difference[:, 1:].ravel(), difference[:, :-1].ravel())[0, 1]) < 0.03


def test_fog_blends_with_a_smooth_density():
    black, white = (Image.new("RGB", (192, 192), colour) for colour in ("black", "white"))
    fogged = [pixels(degradations.fog(one, np.random.default_rng(5))) for one in (black, white)]
    density = fogged[0] / (255 * 0.86)
    # The density is the same on white, and what it leaves of white is added.
    assert np.abs(fogged[1] - (255 * (1 - density) + fogged[0])).max() < 2.5
    assert density.min() >= 0.45 - 0.5 * 0.55 / 2 - 0.05
    assert density.max() <= 0.45 + 0.5 * 0.55 / 2 + 0.05
    assert np.abs(np.diff(density, axis=0)).max() < 0.05
    means = [pixels(degradations.fog(black, np.random.default_rng(n))).mean() / (255 * 0.86) for n in range(200)]
    assert np.mean(means) == pytest.approx(0.45, abs=0.01)


def test_darkness_scales_and_adds_noise():
    grey = Image.new("RGB", (192, 192), (200, 100, 50))
    found = pixels(degradations.dark(grey, np.random.default_rng(0)))
    assert found.mean(axis=(0, 1)) == pytest.approx([110, 55, 27.5], abs=0.3)
    assert found.std(axis=(0, 1)) == pytest.approx([6, 6, 6], abs=0.2)


@pytest.mark.parametrize("kind", WEAK_EVIDENCE)
def test_a_weak_split_shows_the_scenes_of_its_base_reproducibly(kind):
    split = f"test-{kind}"
    assert (IMAGES[split], IMAGES[f"tune-{kind}"]) == (1000, 400)
    assert base_split(split) == ("test", kind)
    for index in range(5):
        base, weak = load_scene("test", index), load_scene(split, index)
        assert (weak.context, weak.style) == (base.context, base.style)
        if kind != "small":
            assert weak.objects == base.objects
        image = weak.render()
        assert image.size == (192, 192)
        assert image.tobytes() != base.render().tobytes()
        assert open_scene(weak.id).tobytes() == image.tobytes()
        assert is_scene(weak.id)
    assert load_scene(split, 0).render().tobytes() != load_scene(f"tune-{kind}", 0).render().tobytes()


def test_splits_without_weak_evidence_stay_as_they_are():
    assert [base_split(split) for split in ("train", "tune-heldout", "test")] == [
        ("train", ""),
        ("tune-heldout", ""),
        ("test", ""),
    ]
    for unknown in ("train-blur", "test-heldout-blur", "test-rain", "blur", "-blur"):
        assert not is_scene(f"{unknown}-00001")
        with pytest.raises(IavaError, match="unknown split"):
            load_scene(unknown, 1)


def test_small_objects_are_small_partly_covered_and_still_visible():
    scenes = [load_scene("tune-small", index) for index in range(100)]
    objects = [one for scene in scenes for one in scene.objects]
    sides = [max(one.frame[2] - one.frame[0], one.frame[3] - one.frame[1]) for one in objects]
    assert (min(sides), max(sides)) == (25, 39)
    visible = np.array([one.visible for one in objects])
    assert visible.min() > 0.15
    assert 0.2 < (visible < 0.75).mean() < 0.6
    # Almost every object of the clean scene finds a place.
    clean = sum(len(load_scene("tune", index).objects) for index in range(100))
    assert len(objects) > 0.95 * clean


@pytest.mark.parametrize("kind", WEAK_EVIDENCE)
@pytest.mark.slow
def test_pope_and_captions_ask_about_weak_evidence(kind):
    task = pocket("pope", f"tune-{kind}", 4)
    assert task.images == [f"tune-{kind}-{index:05d}" for index in range(4)]
    scenes = {image: load_scene(f"tune-{kind}", int(image[-5:])) for image in task.images}
    for question in task.questions:
        name = question.question.removesuffix(" in the image?").split(" ", 3)[3]
        assert question.truth == ("yes" if name in scenes[question.image].names else "no")
    captions = pocket("chair", f"tune-{kind}", 2)
    assert [question.truth for question in captions.questions] == [
        sorted(scenes[image].names) for image in captions.images
    ]
    assert benchmark("pope").has_pocket
