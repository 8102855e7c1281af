"""Degradations of rendered scenes, which weaken the visual evidence.

Their strengths were chosen on the split "tune", so that the AUC of greedy decoding is between .75 and .90.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Degradation = Callable[[Image.Image, np.random.Generator], Image.Image]
"""An RGB image and a generator -> an RGB image of the same size."""

BLUR_SIGMA = 2.7  # pixels
LOW_RESOLUTION = 32  # pixels on a side
NOISE_SIGMA = 75.0  # of 255
FOG_DENSITY = 0.45
FOG_BRIGHTNESS = 0.86
DARK_EXPOSURE = 0.55
DARK_NOISE_SIGMA = 6.0  # of 255


def blur(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """A Gaussian blur of `BLUR_SIGMA`."""
    return image.filter(ImageFilter.GaussianBlur(BLUR_SIGMA))


def low_resolution(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """The image reduced to `LOW_RESOLUTION` pixels on a side by box averages, and enlarged bilinearly."""
    reduced = image.resize((LOW_RESOLUTION, LOW_RESOLUTION), Image.Resampling.BOX)
    return reduced.resize(image.size, Image.Resampling.BILINEAR)


def noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Additive Gaussian noise of `NOISE_SIGMA`, independent for pixels and channels."""
    return _with_noise(np.asarray(image, dtype=np.float32), NOISE_SIGMA, rng)


def fog(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A blend with a bright grey. Its density varies smoothly over the image, with the mean `FOG_DENSITY`."""
    pixels = np.asarray(image, dtype=np.float32)
    coarse = Image.fromarray((255 * rng.random((4, 4))).astype(np.uint8))
    field = np.asarray(coarse.resize(image.size, Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 255
    density = FOG_DENSITY + 0.5 * (1 - FOG_DENSITY) * (field - 0.5)
    return _image((1 - density) * pixels + density * 255 * FOG_BRIGHTNESS)


def dark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """An underexposed image: brightness times `DARK_EXPOSURE`, plus Gaussian noise of `DARK_NOISE_SIGMA`."""
    return _with_noise(DARK_EXPOSURE * np.asarray(image, dtype=np.float32), DARK_NOISE_SIGMA, rng)


def _with_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> Image.Image:
    return _image(pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


SCENE_DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "lowres": low_resolution,
    "noise": noise,
    "fog": fog,
    "dark": dark,
}
"""Kind of weak evidence, which is the suffix of its splits -> degradation."""
