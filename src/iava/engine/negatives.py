"""Negative images: what a contrast branch sees instead of the whole image."""

from dataclasses import replace

import numpy as np
import torch
from transformers import DynamicCache

from iava.engine.branch import Branch
from iava.engine.caches.cache import shared_prefix
from iava.engine.host import to_device, to_host
from iava.engine.images.degrade import DEGRADATIONS
from iava.engine.images.pixels import changed, first_of_each, patches_of, pixel_values, with_pixels
from iava.engine.layout import BranchRow, copied, lay_out
from iava.engine.prompt import Prompt
from iava.errors import IavaError


def zeros(prompt: Prompt, keep: torch.Tensor) -> Branch:
    """The image with the embeddings of the other tokens set to zero; nothing else changes.

    Args:
        prompt: what the decoder read.
        keep: (B, N) bool, the image tokens that stay, in the order of the prompt. A row without any keeps no image
            at all: the contrast branch then answers from the text alone.
    """
    blank = _others(prompt, keep)
    main = prompt.main
    embeddings, deepstack = main.embeddings.masked_fill(blank[..., None], 0.0), main.deepstack
    if deepstack is not None:
        kept = ~blank[prompt.is_image][:, None]
        deepstack = [features * kept.to(features) for features in deepstack]
    return replace(main, embeddings=embeddings, deepstack=deepstack)


def drop(prompt: Prompt, keep: torch.Tensor) -> Branch:
    """The sequence without the other image tokens; all that remains keeps its position. See `zeros`.

    What stands before the image is not read again where it does not depend on the image.
    """
    prefix = _before_images(prompt)
    start = 0 if prefix is None else prefix.get_seq_length()
    # How many tokens stay is the size of what follows, so the host must know.
    remains = prompt.host[1] & ~to_host(_others(prompt, keep))[0].astype(bool)
    remains[:, :start] = False
    ends = [start] * len(remains)
    return lay_out(prompt, copied(remains), prefix, prompt.main.mask[:, :start].bool(), ends)


def text_only(prompt: Prompt) -> Branch:
    """The prompts without any image token, numbered as text alone is. What a template writes around an image stays."""
    rows = copied(prompt.host[1] & ~prompt.host[2])
    return lay_out(prompt, [_in_sequence(prompt, row) for row in rows])


def hide(prompt: Prompt, keep: torch.Tensor) -> Branch:
    """The other image tokens are there, but nothing behind the image may look at them. See `zeros`.

    The image's keys and values are the main branch's: only what follows the image is read again.

    Raises:
        IavaError: if the model's image tokens depend on what follows them, or its cache lost some of them.
    """
    prefix = shared_prefix(prompt, prompt.image_end, prompt.input_ids.shape[1])
    if prefix is None:
        raise IavaError(
            "negative 'hide' needs the image's keys and values to be the same whatever follows the image, and all of "
            "them in the cache: this model reads its prompt both ways, or the prompt is longer than its sliding "
            "window; use 'zeros' or 'drop'"
        )
    mask, ends, start = prompt.host[1], prompt.image_end, prefix.get_seq_length()
    follows = np.arange(mask.shape[1]) >= ends[:, None]
    before = to_device((mask & ~follows)[:, :start], prompt.input_ids.device)
    seen = before & ~_others(prompt, keep)[:, :start]
    return lay_out(prompt, copied(mask & follows), prefix, seen, [int(end) for end in ends])


def pixels(prompt: Prompt, keep: torch.Tensor) -> Branch:
    """The image with the patches of the other tokens painted over, read by the vision tower again. See `zeros`.

    Raises:
        IavaError: if the model's image tokens are no patches of a grid.
    """
    given = pixel_values(prompt)
    return with_pixels(prompt, given * _seen(prompt, keep).to(given))


def seen_worse(prompt: Prompt, keep: torch.Tensor, kind: str, strength: float) -> Branch:
    """The image with the patches of the other tokens degraded, read by the vision tower again. See `zeros`.

    Where no row keeps a token, the whole image is degraded, which works for every family.

    Args:
        prompt: what the decoder read.
        keep: (B, N) bool.
        kind: a key of `iava.engine.images.degrade.DEGRADATIONS`.
        strength: of the degradation, in (0, 1].

    Raises:
        IavaError: if some tokens stay, and the model's image tokens are no patches of a grid.
    """
    worse = changed(prompt, lambda images: DEGRADATIONS[kind](images, strength))
    if not keep.any():
        return with_pixels(prompt, worse)
    return with_pixels(prompt, torch.where(_seen(prompt, keep), pixel_values(prompt), worse))


def _seen(prompt: Prompt, keep: torch.Tensor) -> torch.Tensor:
    """The pixels of the tokens that are kept, see `patches_of`."""
    index, valid = prompt.images
    kept = torch.zeros_like(prompt.is_image).scatter(1, index, valid & keep)
    rows = first_of_each(prompt)
    return patches_of(prompt, kept[rows][prompt.is_image[rows]])


def _before_images(prompt: Prompt) -> DynamicCache | None:
    """The keys and values before the first image of any prompt, if they can be shared."""
    # An outer model makes no masks of token types for a part of the prompt.
    if prompt.main.token_types is not None:
        return None
    first = prompt.host[2].argmax(axis=1)
    return shared_prefix(prompt, np.full_like(first, first.min()), prompt.input_ids.shape[1])


def _in_sequence(prompt: Prompt, row: BranchRow) -> BranchRow:
    first = prompt.host_positions[..., row.prompt, prompt.tokens[row.prompt][:1]]
    return replace(row, positions=first + np.arange(len(row.columns)))


def _others(prompt: Prompt, keep: torch.Tensor) -> torch.Tensor:
    """(B, S) bool, True at the image tokens that are not kept."""
    index, valid = prompt.images
    return torch.zeros_like(prompt.is_image).scatter(1, index, valid & ~keep)


_MASKS = {"zeros": zeros, "drop": drop, "hide": hide, "pixels": pixels}
_WORSE = ("blur", "lowres")
NEGATIVES = (*_MASKS, *_WORSE)
"""The names that a method's `negative` takes."""
READ_AGAIN = ("pixels", *_WORSE)
"""Those for which the vision tower reads the image again."""
WHOLE_IMAGE = ("zeros", *READ_AGAIN)
"""Those whose contrast branch holds keys and values of the whole image, for each question its own."""


def negative_image(name: str, prompt: Prompt, keep: torch.Tensor, strength: float) -> Branch:
    """The image of which some tokens stay, and the others are masked or seen worse.

    Args:
        name: one of `NEGATIVES`.
        prompt: what the decoder read.
        keep: (B, N) bool, see `zeros`.
        strength: of "blur" and "lowres", see `seen_worse`. The others leave it alone.
    """
    return seen_worse(prompt, keep, name, strength) if name in _WORSE else _MASKS[name](prompt, keep)
