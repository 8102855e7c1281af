"""VCD: contrast with the same image under noise.

Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding
(arXiv 2311.16922, CVPR 2024). Checked against the authors' code: the noise schedule, the contrast, the constraint.
"""

import zlib
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine.boundary import Prompt
from iava.engine.pixels import each_image, pixel_values, with_pixels
from iava.methods.base import Method
from iava.methods.checks import check_contrast, check_whole
from iava.methods.trace import Trace

STEPS = 1000
"""How many steps of diffusion the schedule has."""


class VCD(Method):
    """Visual contrastive decoding (arXiv 2311.16922).

    The second branch sees the image after `step` steps of Gaussian diffusion; what it says is subtracted:
    (1 + alpha) l - alpha l_noise, where the image's own probability is at least beta times its maximum.

    The noise is drawn for each image (each tile, where an image is read in tiles) from the seed and its pixels: the
    same image gets the same noise, whatever else is in the batch, and different images different noise.

    Args:
        step: how noisy, 0 to 999.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        seed: of the noise, at least 0.
        model: InstructBLIP and BLIP-2 hand decoding to their language model: for them this is the vision-language
            model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range; while decoding, if `generate` was given no pixels.

    Example:
        >>> model.generate(**inputs, custom_generate=VCD(), max_new_tokens=64)
    """

    name, paper = "vcd", "2311.16922"
    reads_pixels = True

    def __init__(
        self,
        *,
        step: int = 500,
        alpha: float = 1.0,
        beta: float = 0.1,
        seed: int = 0,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_whole("step", step, low=0, high=STEPS - 1)
        check_contrast(alpha, beta)
        check_whole("seed", seed, low=0)
        self.step = step
        self.alpha = alpha
        self.beta = beta
        self.seed = seed
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"step": self.step, "alpha": self.alpha, "beta": self.beta, "seed": self.seed}

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        # A tile without a single pixel pads a batch: Idefics knows it by that.
        noisy = [diffused(x, self.step, self.seed) if x.any() else x for x in each_image(prompt)]
        return with_pixels(prompt, torch.cat([x.flatten() for x in noisy]).view_as(pixel_values(prompt)))


def signal() -> torch.Tensor:
    """(1000,) how much of an image's variance is left after each step: the product of 1 - b up to it.

    b rises from 1e-5 to 5e-3 along a sigmoid from -6 to 6.
    """
    b = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (5e-3 - 1e-5) + 1e-5
    return (1 - b).cumprod(dim=0)


def diffused(image: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    """sqrt(s) image + sqrt(1 - s) noise, s = signal()[step]; the noise is the image's own.

    Args:
        image: normalised pixels of any shape.
        step: 0 to 999.
        seed: at least 0.
    """
    pixels = image.detach().float().cpu().contiguous()
    # The same on every device: drawn on the CPU.
    generator = torch.Generator().manual_seed((seed + zlib.crc32(pixels.numpy().tobytes())) % 2**63)
    noise = torch.randn(pixels.shape, generator=generator)
    left = float(signal()[step])
    return (left**0.5 * pixels + (1 - left) ** 0.5 * noise).to(image)
