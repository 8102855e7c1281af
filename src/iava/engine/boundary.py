"""The decoder boundary: what a vision-language model feeds its language model, captured and fed again.

Every Hugging Face image-text-to-text model with a causal decoder ends in one call of `model.get_decoder()`
with ready embeddings, positions and mask. Standing at that call, one engine serves every family.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

# They belong to one run of the decoder, not to what the decoder is fed.
_RUN_ONLY = ("past_key_values", "use_cache", "input_ids")


@contextmanager
def capture(model: PreTrainedModel) -> Iterator[dict[str, Any]]:
    """Collects, in the dict it yields, the keyword arguments of the decoder's next call."""
    inputs: dict[str, Any] = {}

    def hook(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Any]) -> None:
        inputs.update({key: value for key, value in kwargs.items() if key not in _RUN_ONLY})

    handle = model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield inputs
    finally:
        handle.remove()


def run(model: PreTrainedModel, inputs: dict[str, Any], cache: Cache) -> Any:
    """Runs the whole model with the decoder's inputs given, filling `cache`; `.logits` is (B, 1, V).

    The outer model is run, not the decoder alone, because only it knows what happens between the last hidden
    state and the logits (heads, scaling, soft caps).
    """

    def hook(_module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, **inputs}

    handle = model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    try:
        return model(
            inputs_embeds=inputs["inputs_embeds"],
            attention_mask=inputs["attention_mask"],
            position_ids=inputs["position_ids"],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
    finally:
        handle.remove()


@dataclass
class Prompt:
    """A batch of prompts that the decoder has read.

    Args:
        model: the model that read them.
        input_ids: (B, S) token ids, left padded.
        attention_mask: (B, S), 1 where there is a token, 0 where there is padding.
        inputs: the decoder's keyword arguments: `inputs_embeds` (B, S, D), `position_ids`, `attention_mask`, ...
        rows: per decoder layer the attention of the last prompt token, (B, heads, S) each.
        cache: the keys and values of these prompts.
        images: the keyword arguments that gave the model its images.
    """

    model: PreTrainedModel
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    inputs: dict[str, Any]
    rows: list[torch.Tensor]
    cache: Cache
    images: dict[str, Any] = field(default_factory=dict)

    @property
    def is_image(self) -> torch.Tensor:
        """(B, S) bool, True at image tokens."""
        return image_mask(self.model, self.input_ids)


def image_mask(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Where the image tokens are.

    Args:
        model: its `config.image_token_id` marks them.
        input_ids: (B, S) token ids.

    Returns:
        (B, S) bool.

    Raises:
        ValueError: if a prompt holds no image token.
    """
    mask = input_ids == model.config.image_token_id
    without = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise ValueError(
            f"prompt {without[0]} of {len(mask)} has no image tokens: build the inputs with the processor, from a "
            "prompt that has an image and the image itself"
        )
    return mask


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
