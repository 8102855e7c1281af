"""Repairs of degraded images against SciPy, and the control that reads the repaired image."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import iava
from iava.engine.images.restore import fineness, restored
from iava.errors import IavaError
from iava.methods.controls_restore import Restore
from iava.pocket.scenes import load_scene
from tests import families, tiny, twobranch

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25))]
ASKED = [("Is there a dog ?", PICTURES[:1]), ("What ?", PICTURES[1:2])]
STEPS = 3


def smooth(image: np.ndarray, share: float) -> np.ndarray:
    """(C, H, W) float64."""
    sigma = share * min(image.shape[1:])
    return gaussian_filter(image, (0, sigma, sigma), mode="nearest", radius=(0, 60, 60))


def repaired(image: np.ndarray) -> np.ndarray:
    """(C, H, W) from 0 to 1, step by step."""
    fine, coarse = smooth(image, 0.01), smooth(image, 0.03)
    detail = np.abs(image - fine).mean() / np.abs(fine - coarse).mean()
    if detail < 0.43:
        image = image + 4 * (image - fine)
    elif detail > 1.65:
        image = smooth(image, 0.0075)
    image = image.clip(0, 1)
    low, high = np.quantile(image, [0.001, 0.999])
    return ((image - low) / (high - low)).clip(0, 1)


def scene(split: str) -> np.ndarray:
    # As the pocket model's processor reduces it.
    picture = load_scene(split, 4).render().resize((96, 96), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64).transpose(2, 0, 1) / 255


@pytest.mark.parametrize("split", ["tune", "tune-blur", "tune-lowres", "tune-noise", "tune-fog", "tune-dark"])
def test_a_scene_gets_the_repair_that_it_needs(split):
    image = scene(split)
    found = restored(torch.tensor(image[None], dtype=torch.float32))[0]
    torch.testing.assert_close(found, torch.tensor(repaired(image), dtype=torch.float32), atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["blur", "lowres", "noise", "fog", "dark"])
def test_a_repaired_scene_is_closer_to_the_clean_one(kind):
    clean, weak = scene("tune"), scene(f"tune-{kind}")
    better = restored(torch.tensor(weak[None], dtype=torch.float32))[0].numpy()
    assert np.abs(better - clean).mean() < np.abs(weak - clean).mean()


def test_fineness_does_not_depend_on_brightness_and_contrast():
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fineness(0.2 * image + 0.4), fineness(image), atol=1e-3, rtol=1e-3)


def test_an_image_of_one_colour_stays_finite():
    assert restored(torch.full((1, 3, 16, 16), 0.5)).isfinite().all()


@pytest.mark.parametrize("name", ["llava", "llava_next", "instructblip", "idefics3"])
def test_the_answer_is_that_about_the_repaired_image(name):
    model, processor = families.build(name)
    scale = processor.image_processor
    mean, std = (np.array(one)[:, None, None] for one in (scale.image_mean, scale.image_std))

    def expected(question, pictures):
        inputs = families.inputs(name, (question, pictures))
        pixels = inputs["pixel_values"]
        tiles = [
            torch.tensor((repaired((tile.double().numpy() * std + mean).clip(0, 1)) - mean) / std).to(tile)
            if tile.any()
            else tile
            for tile in pixels.flatten(0, -4)
        ]
        inputs["pixel_values"] = torch.stack(tiles).view_as(pixels)
        answer = twobranch.reader(twobranch.eager(name), inputs)
        return twobranch.decode(answer, answer, lambda full, *_: full, STEPS)

    found = model.generate(
        **families.inputs(name, *ASKED), custom_generate=Restore(processor, model=model), max_new_tokens=STEPS
    )
    inputs = families.inputs(name, *ASKED)
    assert twobranch.answers(inputs, found) == [expected(*asked) for asked in ASKED]


def test_without_a_processor_it_says_what_is_missing():
    model, _ = families.build("llava")
    with pytest.raises(IavaError, match=r"use Restore\(processor\)"):
        model.generate(**families.inputs("llava", *ASKED), custom_generate=Restore(), max_new_tokens=1)
    assert iava.load(*families.build("llava")).method("restore").settings() == {}
