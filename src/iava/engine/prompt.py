"""A batch of prompts that the decoder reads, and where their images are."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from iava.engine.boundary import sees_ahead
from iava.engine.branch import Branch
from iava.engine.host import Array, to_device, to_host
from iava.errors import IavaError


@dataclass
class Prompt:
    """A batch of prompts that the decoder has read; what a method's contrast branches are made of.

    Args:
        model: the model that read them and runs the decoding loop.
        vlm: the vision-language model; another than `model` where that hands decoding to its language model.
        input_ids: (B, S) token ids, left padded.
        main: the branch that was read.
        decoder_mask: what the decoder was given as mask.
        cache: the keys and values of these prompts.
        generate_kwargs: what the caller of `generate` passed, such as `pixel_values`.
        seed: of draws.
        rows: per decoder layer the attention of the last prompt token, (B, heads, S) each.
        shared: for each prompt the prefix that it shares with others; empty where nothing is shared.
        largest_run: rows times columns of the largest run that read prompts with a shared prefix; None where they were
            read whole.
        reading: what a method reads off the prompt, by name, for explanations.
        beside: edits of each prompt that were read in the same pass, and the last token's attention to the image under
            them, (B, L, heads, N); None if nothing was.
        conversations: for each prompt that was passed to `generate`, where its text comes from, see
            `engine.text.instruction.editable`; None where only the tokens are known.
    """

    model: PreTrainedModel
    vlm: PreTrainedModel
    input_ids: torch.Tensor
    main: Branch
    decoder_mask: Any
    cache: Cache
    generate_kwargs: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    rows: list[torch.Tensor] = field(default_factory=list)
    shared: list[Any] = field(default_factory=list)
    largest_run: int | None = None
    reading: dict[str, torch.Tensor] = field(default_factory=dict)
    beside: tuple[Any, torch.Tensor] | None = None
    conversations: Sequence[Any] | None = None

    @property
    def is_image(self) -> torch.Tensor:
        """(B, S) bool, True at image tokens."""
        return self.main.is_image

    @cached_property
    def host(self) -> tuple[Array, Array, Array]:
        """Copies on the host, (B, S) each: token ids, which columns are no padding, which are image tokens."""
        ids, mask, _ = self._copied
        return ids, mask.astype(bool), ids == self.vlm.config.image_token_id

    @property
    def host_positions(self) -> Array:
        """(..., B, S) positions on the host."""
        return self._copied[2]

    @cached_property
    def _copied(self) -> list[Array]:
        return to_host(self.input_ids, self.main.mask, self.main.positions)

    @cached_property
    def image_end(self) -> Array:
        """(B,) the column behind each prompt's last image token."""
        is_image = self.host[2]
        return (is_image * np.arange(1, is_image.shape[1] + 1)).max(axis=1)

    @cached_property
    def image_counts(self) -> list[int]:
        """The number of image tokens of each prompt."""
        return [int(count) for count in self.host[2].sum(axis=1)]

    @cached_property
    def images(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The columns of the image tokens, index (B, N) long and valid (B, N) bool, see `pack`."""
        index, valid = packed(self.host[2])
        both = to_device(np.stack([index, valid]), self.input_ids.device)
        return both[0], both[1].bool()

    @cached_property
    def tokens(self) -> list[Array]:
        """For each prompt the columns of its tokens, (n,), without padding."""
        return [row.nonzero()[0] for row in self.host[1]]

    def ids(self, row: int) -> list[int]:
        """A prompt's token ids, without padding."""
        return [int(id) for id in self.host[0][row, self.tokens[row]]]

    def shares_before(self, ends: Array) -> bool:
        """Whether keys and values before a column, (B,) each, do not depend on what stands there and behind it."""
        return not sees_ahead(self.decoder_mask, (ends - 1).clip(min=0))


def prompt_of(
    model: PreTrainedModel,
    vlm: PreTrainedModel,
    input_ids: torch.Tensor,
    captured: dict[str, Any],
    model_kwargs: dict[str, Any],
    cache: Cache,
    **about: Any,
) -> Prompt:
    """Puts together what was seen while the prompts were read.

    Args:
        captured: what `boundary.capture` collected.
        model_kwargs: what `generate` passed to its loop: `attention_mask`, `token_type_ids`.
        about: the rest of `Prompt`.
    """
    mask = model_kwargs.get("attention_mask")
    batch, length = input_ids.shape
    rest = dict(captured)
    positions, decoder_mask = rest.pop("position_ids"), rest.pop("attention_mask")
    rest.pop("visual_pos_masks", None)
    main = Branch(
        embeddings=rest.pop("inputs_embeds"),
        positions=positions.expand(*positions.shape[:-2], batch, length),
        mask=torch.ones_like(input_ids) if mask is None else mask,
        is_image=input_ids == vlm.config.image_token_id,
        token_types=model_kwargs.get("token_type_ids"),
        deepstack=rest.pop("deepstack_visual_embeds", None),
        others={key: value for key, value in rest.items() if key != "token_type_ids"},
    )
    prompt = Prompt(model, vlm, input_ids, main, decoder_mask, cache, **about)
    _, there, is_image = prompt.host
    _check_images(is_image.any(axis=1))
    prompt.main = replace(main, begins=[int(first) for first in there.argmax(axis=1)], sees=[0] * batch)
    return prompt


def image_mask(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Where the image tokens are.

    Args:
        model: its `config.image_token_id` marks them.
        input_ids: (B, S) token ids.

    Returns:
        (B, S) bool.

    Raises:
        IavaError: if no prompt holds an image token.
    """
    mask = input_ids == model.config.image_token_id
    _check_images(to_host(mask.any(dim=1))[0])
    return mask


def _check_images(seen: Any) -> None:
    if not seen.any():
        raise IavaError(
            "none of the prompts has image tokens: build the inputs with the processor, from a prompt that has an "
            "image and the image itself"
        )


def packed(mask: Array) -> tuple[Array, Array]:
    """`pack` on the host."""
    counts = mask.sum(axis=1)
    width = int(counts.max())
    index = np.argsort(~mask, axis=1, kind="stable")[:, :width]
    return index, np.arange(width) < counts[:, None]


def pack(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns a ragged choice of columns into rectangular indices.

    Args:
        mask: (B, S) bool.

    Returns:
        index (B, N) long, the chosen columns of each row in order, N the largest number of them; and
        valid (B, N) bool, False where a row has fewer than N (its index there points at an unchosen column).
    """
    counts = mask.sum(dim=1)
    width = int(counts.max())
    index = mask.long().argsort(dim=1, descending=True, stable=True)[:, :width]
    return index, torch.arange(width, device=mask.device) < counts[:, None]
