"""Negative images: what the second branch's decoder is fed instead of the whole image.

Each gives the inputs that `boundary.run` takes. Three things may differ from the prompt's: a branch may be shorter
or longer (its tokens stand at the right), its last token may have another position (what is answered follows it), and
it may bring, as `past_key_values`, a cache that holds what comes before it.
"""

from typing import Any

import torch
from transformers import DynamicCache

from iava.engine.boundary import Prompt, pack
from iava.engine.columns import at_columns, right_aligned
from iava.engine.pixels import first_of_each, painted, with_pixels
from iava.engine.prefix import prefix_cache
from iava.errors import IavaError


def zeros(prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
    """The image with all but some of its tokens blanked: their embeddings are set to zero, nothing else changes.

    Args:
        prompt: what the decoder read.
        keep: (B, N) bool, the image tokens that stay, in the order of the prompt. A row without any keeps no image
            at all: the second branch then answers from the text alone.

    Returns:
        The decoder's inputs for the second branch.
    """
    blank = _others(prompt, keep)
    inputs = {**prompt.inputs, "inputs_embeds": prompt.inputs["inputs_embeds"].masked_fill(blank[..., None], 0.0)}
    if inputs.get("deepstack_visual_embeds") is not None:
        kept = ~blank[prompt.is_image][:, None]
        inputs["deepstack_visual_embeds"] = [
            features * kept.to(features) for features in inputs["deepstack_visual_embeds"]
        ]
    return inputs


def drop(prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
    """The sequence without the image's other tokens; all that remains keeps its position. See `zeros`.

    What stands before the image is not read again where nothing there depends on the image.
    """
    return _without(prompt, _others(prompt, keep), _before_images(prompt))


def _without(prompt: Prompt, columns: torch.Tensor, before: DynamicCache | None) -> dict[str, Any]:
    """The sequence without some columns, (B, S) bool, behind what `before` holds of it."""
    remains = prompt.attention_mask.bool() & ~columns
    start = before.get_seq_length() if before else 0
    seen = remains[:, :start].clone()
    remains[:, :start] = False
    index, valid = right_aligned(remains)
    inputs = at_columns(prompt.inputs, index, valid)
    if before:
        inputs |= {"attention_mask": torch.cat([seen, valid], dim=1).long(), "past_key_values": before}
    if inputs.get("deepstack_visual_embeds") is not None:
        kept = remains[prompt.is_image]
        inputs["deepstack_visual_embeds"] = [features[kept] for features in inputs["deepstack_visual_embeds"]]
    return inputs


def text_only(prompt: Prompt) -> dict[str, Any]:
    """The prompts without any image token, numbered as text alone is. What a template writes around an image stays."""
    inputs = _without(prompt, prompt.is_image, None)
    positions = prompt.inputs["position_ids"]
    start = prompt.attention_mask.argmax(dim=1, keepdim=True).expand(*positions.shape[:-2], -1, 1)
    rank = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions.gather(-1, start) + rank}


def hide(prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
    """The image's other tokens are there, but nothing after the image may look at them. See `zeros`.

    The image's keys and values are the first branch's: only what follows the image is read again.

    Raises:
        IavaError: if the model's image tokens depend on what follows them, or its cache lost some of them.
    """
    cache = prefix_cache(prompt, prompt.input_ids.shape[1])
    if cache is None:
        raise IavaError(
            "negative 'hide' needs the image's keys and values to be the same whatever follows the image, and all of "
            "them in the cache: this model reads its prompt both ways, or the prompt is longer than its sliding "
            "window; use 'zeros' or 'drop'"
        )
    columns = torch.arange(prompt.input_ids.shape[1], device=prompt.input_ids.device)
    follows = prompt.attention_mask.bool() & (columns > prompt.last_image)
    index, valid = right_aligned(follows)
    inputs = at_columns(prompt.inputs, index, valid)
    seen = prompt.attention_mask.bool() & ~follows & ~_others(prompt, keep)
    return {
        "inputs_embeds": inputs["inputs_embeds"],
        "position_ids": inputs["position_ids"],
        "attention_mask": torch.cat([seen[:, : cache.get_seq_length()], valid], dim=1).long(),
        "past_key_values": cache,
    }


def pixels(prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
    """The image with the patches of its other tokens painted over, read by the vision tower again. See `zeros`.

    Raises:
        IavaError: if the model's image tokens are no patches, or it is not known which.
    """
    index, valid = pack(prompt.is_image)
    kept = torch.zeros_like(prompt.is_image).scatter(1, index, valid & keep)
    rows = first_of_each(prompt)
    return with_pixels(prompt, painted(prompt, kept[rows][prompt.is_image[rows]]))


def _before_images(prompt: Prompt) -> DynamicCache | None:
    """The keys and values of the columns before the first image of any prompt, if there are such, and they stand."""
    width = int(prompt.is_image.long().argmax(dim=1).min())
    # Masks made of token types are not made for a part of the prompt.
    if width == 0 or prompt.inputs.get("token_type_ids") is not None:
        return None
    return prefix_cache(prompt, prompt.input_ids.shape[1], width=width)


def _others(prompt: Prompt, keep: torch.Tensor) -> torch.Tensor:
    """(B, S) bool, True at the image tokens that are not kept."""
    index, valid = pack(prompt.is_image)
    return torch.zeros_like(prompt.is_image).scatter(1, index, valid & ~keep)


# By the name that a method's `negative` takes.
NEGATIVES = {"zeros": zeros, "drop": drop, "hide": hide, "pixels": pixels}
