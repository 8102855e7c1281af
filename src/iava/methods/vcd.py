"""VCD: contrast with the same image under noise, or under another degradation.

Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding
(arXiv 2311.16922, CVPR 2024). Checked against the authors' code: the noise schedule, the contrast, the constraint.
"""

import zlib
from dataclasses import dataclass

import torch

from iava.engine.branch import Branch
from iava.engine.images.degrade import DEGRADATIONS
from iava.engine.images.pixels import changed, each_image, first_of_each, pixel_values, rows_of_images, with_pixels
from iava.engine.images.quarter import quartered
from iava.engine.prompt import Prompt
from iava.methods.base import Method
from iava.methods.checks import check_choice, check_contrast, check_number, check_whole

STEPS = 1000
"""Diffusion steps of the schedule."""


@dataclass(eq=False, kw_only=True)
class VCD(Method):
    """Visual contrastive decoding (arXiv 2311.16922).

    The contrast branch sees the image after `step` steps of Gaussian diffusion. Its logits are subtracted:
    (1 + alpha) l - alpha l_noise, where the main branch's probability is at least beta times its maximum.

    The noise is drawn for each image (each tile, where an image is read in tiles) from the seed and its pixels: the
    same image gets the same noise, whatever else is in the batch, and different images different noise. The authors'
    code draws new noise for each question.

    Other degradations are not the paper's. They show whether noise is what matters.

    Args:
        kind: "noise", or "blur", "lowres" or "fog" (see `iava.engine.images.degrade`), or "quarter": an image of half
            the height and width, with a quarter of the tokens, for families that take any resolution.
        step: how noisy, 0 to 999.
        strength: of the other kinds, above 0 and at most 1. The default is for "blur".
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        seed: of the noise, at least 0.
        noise_per: "image" draws the noise from the image alone, "question" from the image and the prompt.

    Raises:
        IavaError: if a setting is out of range; while decoding, if `generate` was given no pixels.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.VCD(step=500), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    kind: str = "noise"
    step: int = 500
    strength: float = 0.01
    alpha: float = 1.0
    beta: float = 0.1
    seed: int = 0
    noise_per: str = "image"

    name, paper = "vcd", "2311.16922"
    reads_pixels = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("kind", self.kind, ("noise", *DEGRADATIONS, "quarter"))
        check_whole("step", self.step, low=0, high=STEPS - 1)
        check_number("strength", self.strength, low=0, high=1, above=True)
        check_contrast(self.alpha, self.beta)
        check_whole("seed", self.seed, low=0)
        check_choice("noise_per", self.noise_per, ("image", "question"))

    @property
    def own_images(self) -> int:
        return int(self.kind == "noise" and self.noise_per == "question")

    def branches(self, prompt: Prompt) -> list[Branch]:
        if self.kind == "quarter":
            return [quartered(prompt)]
        if self.kind != "noise":
            worse = DEGRADATIONS[self.kind]
            return [with_pixels(prompt, changed(prompt, lambda images: worse(images, self.strength)))]
        images = each_image(prompt)
        seeds = [self.seed] * len(images)
        if self.noise_per == "question":
            prompts = range(len(prompt.input_ids))[first_of_each(prompt)]
            own = [self.seed + zlib.crc32(str(prompt.ids(row)).encode()) for row in prompts]
            seeds = [own[row] for row in rows_of_images(prompt)]
        # A tile of zeros pads a batch; Idefics tells it by that.
        noisy = [diffused(x, self.step, seed) if x.any() else x for x, seed in zip(images, seeds, strict=True)]
        return [with_pixels(prompt, torch.cat([x.flatten() for x in noisy]).view_as(pixel_values(prompt)))]


def signal() -> torch.Tensor:
    """(1000,): the share of an image's variance that is left after each step, the product of 1 - b up to it.

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
