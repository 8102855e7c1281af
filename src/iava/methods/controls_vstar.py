"""Controls for what the contrast branch sees: the contrast of IAVA with other image tokens in it than IAVA's.

Does the contrast depend on irrelevant tokens, or do any others serve as well? Draws are seeded by the seed of the call
and by the prompt's own tokens, so that a batch draws what its prompts would draw alone.
"""

import zlib
from dataclasses import dataclass, replace

import torch

from iava.engine.branch import Branch
from iava.engine.negatives import NEGATIVES, READ_AGAIN, WHOLE_IMAGE, negative_image
from iava.engine.prompt import Prompt
from iava.methods.base import Method
from iava.methods.checks import check_choice, check_contrast, check_number
from iava.methods.iava import IAVA


class RandomTokens(IAVA):
    """As many tokens as IAVA selects, drawn at random. Takes what IAVA takes."""

    name, title = "iava-random", "random V*"
    control = True

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        count = super()._select(prompt, general, query, valid).sum(dim=1, keepdim=True)
        draws = torch.zeros(valid.shape)
        for row, there in enumerate(valid):
            draws[row, : int(there.sum())] = torch.rand(int(there.sum()), generator=_generator(prompt, row))
        return _largest(draws.to(valid.device), count, valid)


class RelevantTokens(IAVA):
    """As many tokens as IAVA selects, those whose attention rises most from the general instruction to the question.

    Takes what IAVA takes.
    """

    name, title = "iava-relevant", "relevant V*"
    control = True

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        count = super()._select(prompt, general, query, valid).sum(dim=1, keepdim=True)
        return _largest(query - general, count, valid)


class Noise(IAVA):
    """The tokens that IAVA selects, their embeddings replaced by noise.

    The noise is Gaussian, with the mean and the standard deviation that each dimension has over the row's image tokens.
    Takes what IAVA takes, but only the negatives "zeros" and "drop", in which there are embeddings to replace.
    """

    name, title = "noise", "noise as V*"
    control = True
    negatives = ("zeros", "drop")

    def _negative(self, prompt: Prompt, keep: torch.Tensor) -> Branch:
        main, image = prompt.main, prompt.is_image
        embeddings = main.embeddings.clone()
        # Features that some families add in their decoder's layers, (image tokens of all rows, D) each.
        layers = [features.clone() for features in main.deepstack or ()]
        rows = image.nonzero()[:, 0]
        for row in range(len(image)):
            generator = _generator(prompt, row)
            embeddings[row, image[row]] = _like(embeddings[row, image[row]], generator)
            for features in layers:
                features[rows == row] = _like(features[rows == row], generator)
        noisy = replace(main, embeddings=embeddings, deepstack=layers or None)
        return super()._negative(replace(prompt, main=noisy), keep)


@dataclass(eq=False, kw_only=True)
class NoImage(Method):
    """No image token is kept: the contrast branch answers from the text alone.

    Args:
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        negative: how the image is masked: "drop", "zeros", "hide", "pixels", "blur" or "lowres"; see `IAVA`.
        strength: of the negatives "blur" and "lowres", above 0 and at most 1; see `IAVA`.

    Raises:
        IavaError: if a setting is out of range.
    """

    alpha: float = 1.0
    beta: float = 0.1
    negative: str = "drop"
    strength: float = 0.01

    name, title = "no-image", "no image"
    control = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_contrast(self.alpha, self.beta)
        check_choice("negative", self.negative, NEGATIVES)
        check_number("strength", self.strength, low=0, high=1, above=True)

    @property
    def reads_pixels(self) -> bool:
        return self.negative in READ_AGAIN

    @property
    def own_images(self) -> int:
        return int(self.negative in WHOLE_IMAGE)

    def branches(self, prompt: Prompt) -> list[Branch]:
        _, valid = prompt.images
        return [negative_image(self.negative, prompt, self._keep(prompt, valid), self.strength)]

    def _keep(self, prompt: Prompt, valid: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(valid)


def _generator(prompt: Prompt, row: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{prompt.seed} {prompt.ids(row)}".encode()))


def _largest(scores: torch.Tensor, count: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, N) bool, True at each row's `count` (B, 1) largest scores."""
    order = scores.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < count


def _like(features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(features.shape, generator=generator).to(features)
    return noise * features.std(dim=0, correction=0) + features.mean(dim=0)
