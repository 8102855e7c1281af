"""Controls for what the second branch sees: the contrast of IAVA with other image tokens left in it than IAVA's.

Does the contrast depend on irrelevant tokens, or does any do as well? Whatever is drawn is seeded by torch's seed
(`torch.manual_seed`, `ask(seed=...)`) and by the prompt's own tokens, so that a batch draws what its prompts would
draw alone.
"""

import zlib
from dataclasses import replace
from typing import Any

import torch

from iava.engine.boundary import Prompt, pack
from iava.engine.negatives import NEGATIVES
from iava.methods.base import Method
from iava.methods.checks import check_choice, check_contrast
from iava.methods.iava import IAVA
from iava.methods.trace import Trace


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

    Gaussian, with the mean and the standard deviation that each dimension has over the row's image tokens. Takes what
    IAVA takes, but only the negatives "zeros" and "drop", in which there are embeddings to replace.
    """

    name, title = "noise", "noise as V*"
    control = True
    negatives = ("zeros", "drop")

    def _negative(self, prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
        inputs, image = prompt.inputs, prompt.is_image
        embeddings = inputs["inputs_embeds"].clone()
        # Features that some families add in their decoder's layers, (image tokens of all rows, D) each.
        layers = [features.clone() for features in inputs.get("deepstack_visual_embeds") or ()]
        rows = image.nonzero()[:, 0]
        for row in range(len(image)):
            generator = _generator(prompt, row)
            embeddings[row, image[row]] = _like(embeddings[row, image[row]], generator)
            for features in layers:
                features[rows == row] = _like(features[rows == row], generator)
        noisy = {**inputs, "inputs_embeds": embeddings, **({"deepstack_visual_embeds": layers} if layers else {})}
        return super()._negative(replace(prompt, inputs=noisy), keep)


class NoImage(Method):
    """No image token is kept: the second branch answers from the text alone.

    Args:
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        negative: how the image is masked; see `IAVA`.

    Raises:
        IavaError: if a parameter is out of range.
    """

    name, title = "no-image", "no image"
    control = True

    def __init__(self, *, alpha: float = 1.0, beta: float = 0.1, negative: str = "drop") -> None:
        check_contrast(alpha, beta)
        check_choice("negative", negative, NEGATIVES)
        self.alpha = alpha
        self.beta = beta
        self.negative = negative
        self.reads_pixels = negative == "pixels"

    def settings(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta, "negative": self.negative}

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        _, valid = pack(prompt.is_image)
        return NEGATIVES[self.negative](prompt, self._keep(prompt, valid))

    def _keep(self, prompt: Prompt, valid: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(valid)


def _generator(prompt: Prompt, row: int) -> torch.Generator:
    ids = prompt.input_ids[row][prompt.attention_mask[row].bool()].tolist()
    return torch.Generator().manual_seed(zlib.crc32(f"{torch.initial_seed()} {ids}".encode()))


def _largest(scores: torch.Tensor, count: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, N) bool, True at each row's `count` (B, 1) largest scores."""
    order = scores.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < count


def _like(features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(features.shape, generator=generator).to(features)
    return noise * features.std(dim=0, correction=0) + features.mean(dim=0)
