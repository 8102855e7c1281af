"""Negative images: what the second branch's decoder is fed instead of the whole image."""

from typing import Any

import torch

from iava.engine.boundary import Prompt, pack


def zeros(prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
    """The image with all but some of its tokens blanked: their embeddings are set to zero, nothing else changes.

    Args:
        prompt: what the decoder read.
        keep: (B, N) bool, the image tokens that stay, in the order of the prompt. A row without any keeps no image
            at all: the second branch then answers from the text alone.

    Returns:
        The decoder's inputs for the second branch.
    """
    index, valid = pack(prompt.is_image)
    blank = torch.zeros_like(prompt.is_image).scatter(1, index, valid & ~keep)
    embeddings = prompt.inputs["inputs_embeds"].masked_fill(blank[..., None], 0.0)
    return {**prompt.inputs, "inputs_embeds": embeddings}


# By the name that a method's `negative` takes.
NEGATIVES = {"zeros": zeros}
