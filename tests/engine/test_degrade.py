"""Degradations of images against SciPy and loops, and negative images that show them, for every family."""

import pytest
import torch

from iava.engine.images.degrade import DEGRADATIONS, blurred, fogged, reduced
from iava.methods.controls_vstar import NoImage
from iava.methods.vcd import VCD
from tests import families, naive, tiny, twobranch
from tests.degraded import blur_by_scipy, blurred_pixels

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [("Is there a dog ?", PICTURES[:1]), ("What ?", PICTURES[1:2])]
STEPS = 3


def contrasted(full: torch.Tensor, negative: torch.Tensor, _: int) -> torch.Tensor:
    return naive.contrasted(full, negative, 1.0, 0.1)


def blocks_by_loops(images: torch.Tensor, side: int) -> torch.Tensor:
    """The mean of each block of side x side pixels."""
    count, channels, height, width = images.shape
    means = torch.zeros(count, channels, height // side, width // side)
    for row in range(height // side):
        for column in range(width // side):
            block = images[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            means[:, :, row, column] = block.mean(dim=(-2, -1))
    return means


def test_blur_is_scipys():
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    for strength in (0.02, 0.05, 0.2):
        torch.testing.assert_close(blurred(images, strength), blur_by_scipy(images, strength), atol=2e-4, rtol=0)


def test_a_lower_resolution_interpolates_the_means_of_blocks():
    images = torch.randn(1, 3, 12, 24, generator=torch.Generator().manual_seed(2))
    means, found = blocks_by_loops(images, 3), reduced(images, 0.25)
    assert found.shape == images.shape
    # The centre of each block lies on a pixel, and shows its mean.
    torch.testing.assert_close(found[:, :, 1::3, 1::3], means)
    # A pixel to the right of a centre lies a third of the way to the next.
    torch.testing.assert_close(
        found[:, :, 1::3, 2:-3:3], means[..., :-1] * 2 / 3 + means[..., 1:] / 3, atol=1e-5, rtol=1e-5
    )


def test_a_block_of_one_pixel_changes_nothing():
    images = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(reduced(images, 0.01), images)


def test_fog_blends_with_the_brightest_value():
    image = torch.tensor([[[[0.0, 4.0], [2.0, -2.0]]]])
    torch.testing.assert_close(fogged(image, 0.25), torch.tensor([[[[1.0, 4.0], [2.5, -0.5]]]]))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_half_precision_stays(kind):
    assert DEGRADATIONS[kind](torch.randn(1, 3, 8, 8).half(), 0.3).dtype == torch.float16


@pytest.mark.parametrize("name", families.FAMILIES)
@pytest.mark.slow
def test_a_blurred_image_equals_the_naive_branches_in_every_family(name):
    model, _ = families.build(name)
    eager = twobranch.eager(name)

    def expected(question, pictures):
        inputs = families.inputs(name, (question, pictures))
        worse = {**inputs, "pixel_values": blurred_pixels(name, inputs, 0.1)}
        return twobranch.decode(twobranch.reader(eager, inputs), twobranch.reader(eager, worse), contrasted, STEPS)

    inputs = families.inputs(name, *ASKED)
    wanted = [expected(*asked) for asked in ASKED]
    for method in (VCD(kind="blur", strength=0.1, model=model), NoImage(negative="blur", strength=0.1, model=model)):
        found = model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS)
        assert twobranch.answers(inputs, found) == wanted


@pytest.mark.parametrize(("setting", "value"), [("strength", 0.0), ("strength", 1.5), ("kind", "rain")])
def test_bad_settings_get_one_line(setting, value):
    with pytest.raises(ValueError, match=f"{setting} is {value!r}: it must be"):
        VCD(**{setting: value})
