"""The decoder boundary: what a vision-language model feeds its language model, captured and fed again.

Every Hugging Face image-text-to-text model with a causal decoder ends in one call of `model.get_decoder()`
with ready embeddings, positions and mask. Standing at that call, one engine serves every family.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from iava.errors import IavaError

# They belong to one run of the decoder, not to what the decoder is fed.
_RUN_ONLY = ("past_key_values", "use_cache", "input_ids")
# What an outer model takes itself and makes its decoder's masks from; the rest goes to the decoder directly.
_OUTER = ("inputs_embeds", "attention_mask", "position_ids", "token_type_ids")


class _AtTheBoundary(Exception):  # noqa: N818
    """Ends a forward pass before its decoder."""


@contextmanager
def capture(model: PreTrainedModel, *, stop: bool = False) -> Iterator[dict[str, Any]]:
    """Collects, in the dict it yields, the keyword arguments of the decoder's next call.

    Args:
        model: the model to watch.
        stop: do not run the decoder, but go on behind the `with`.
    """
    inputs: dict[str, Any] = {}

    def hook(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Any]) -> None:
        inputs.update({key: value for key, value in kwargs.items() if key not in _RUN_ONLY})
        if stop:
            raise _AtTheBoundary

    handle = model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield inputs
    except _AtTheBoundary:
        pass
    finally:
        handle.remove()


def run(model: PreTrainedModel, inputs: dict[str, Any], cache: Cache | None) -> Any:
    """Runs the whole model with the decoder's inputs given, filling `cache`; `.logits` is (B, 1, V).

    The outer model is run, not the decoder alone, because only it knows what happens between the last hidden
    state and the logits (heads, scaling, soft caps) and which tokens of a prompt see each other both ways.

    Args:
        model: the model that runs the decoding loop.
        inputs: `inputs_embeds` (B, S, D), `attention_mask` (B, S), `position_ids` (..., B, S), for some families
            `token_type_ids` (B, S), and whatever else their decoder takes.
        cache: None keeps nothing.
    """
    outer = {key: inputs[key] for key in _OUTER if inputs.get(key) is not None}
    inner = {key: value for key, value in inputs.items() if key not in _OUTER}

    def hook(_module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, **inner}

    handle = model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    try:
        return model(**outer, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1, return_dict=True)
    finally:
        handle.remove()


@dataclass
class Prompt:
    """A batch of prompts that the decoder has read.

    Args:
        model: the model that read them and runs the decoding loop.
        input_ids: (B, S) token ids, left padded.
        attention_mask: (B, S), 1 where there is a token, 0 where there is padding.
        inputs: what `run` takes: `inputs_embeds` (B, S, D), `position_ids`, `attention_mask`, ...
        rows: per decoder layer the attention of the last prompt token, (B, heads, S) each.
        cache: the keys and values of these prompts.
        whole: the vision-language model, where `model` is only its language model.
        shareable: whether no token up to the last image token saw what comes after it.
        beginnings: for each prompt what it shares with others; empty where nothing is shared.
    """

    model: PreTrainedModel
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    inputs: dict[str, Any]
    rows: list[torch.Tensor]
    cache: Cache
    whole: PreTrainedModel | None = None
    shareable: bool = True
    beginnings: list[Any] = field(default_factory=list)

    @property
    def outer(self) -> PreTrainedModel:
        """The vision-language model."""
        return self.model if self.whole is None else self.whole

    @cached_property
    def is_image(self) -> torch.Tensor:
        """(B, S) bool, True at image tokens."""
        return image_mask(self.outer, self.input_ids)

    @cached_property
    def last_image(self) -> torch.Tensor:
        """(B, 1) long, the column of each prompt's last image token."""
        columns = torch.arange(self.input_ids.shape[1], device=self.input_ids.device)
        return (self.is_image * columns).amax(dim=1, keepdim=True)


def prompt_of(
    model: PreTrainedModel,
    outer: PreTrainedModel,
    input_ids: torch.Tensor,
    mask: torch.Tensor | None,
    captured: dict[str, Any],
    token_types: torch.Tensor | None,
    rows: list[torch.Tensor],
    cache: Cache,
) -> Prompt:
    """Puts together what was seen while the prompts were read.

    Args:
        mask: (B, S), or None where nothing is padded.
        captured: what `capture` collected.
        token_types: (B, S), for families whose outer model makes masks of them.
    """
    padding = torch.ones_like(input_ids) if mask is None else mask
    batch, length = input_ids.shape
    positions = captured["position_ids"]
    prompt = Prompt(
        model=model,
        whole=outer,
        input_ids=input_ids,
        attention_mask=padding,
        inputs={
            **captured,
            "position_ids": positions.expand(*positions.shape[:-2], batch, length),
            "attention_mask": padding,
            "token_type_ids": token_types,
        },
        rows=rows,
        cache=cache,
    )
    prompt.shareable = not _sees_ahead(captured["attention_mask"], prompt.last_image)
    return prompt


def _sees_ahead(mask: Any, column: torch.Tensor) -> bool:
    """Whether the token at a column may see later ones.

    A decoder that is given the plain padding mask, or none, makes a causal one of it.
    """
    if isinstance(mask, dict):
        return any(_sees_ahead(part, column) for part in mask.values())
    if mask is None or (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        return False
    if not isinstance(mask, torch.Tensor):
        return True
    row = mask[torch.arange(len(column), device=mask.device), 0, column[:, 0].to(mask.device)]
    seen = row if row.dtype == torch.bool else row > torch.finfo(row.dtype).min / 2
    later = torch.arange(row.shape[-1], device=mask.device) > column.to(mask.device)
    return bool((seen & later).any())


def check_served(model: PreTrainedModel) -> None:
    """Refuses models that have no causal decoder with image tokens in its sequence.

    Raises:
        IavaError: names the reason.
    """
    kind, config = model.config.model_type, model.config.get_text_config()
    if model.config.is_encoder_decoder or config.is_encoder_decoder:
        raise IavaError(
            f"{kind} is an encoder-decoder: its image tokens are in the encoder, where the answer's tokens have no row "
            "of attention; use a model with a causal decoder"
        )
    if getattr(config, "cross_attention_layers", None):
        raise IavaError(
            f"{kind} reads the image by cross-attention: there are no image tokens in the decoder's sequence to "
            "select; use a model that puts them there"
        )
    kinds = set(getattr(config, "layer_types", None) or ()) - _ATTENTION
    if kinds:
        raise IavaError(
            f"{kind} has layers of another kind than attention ({', '.join(sorted(kinds))}): they have no attention to "
            "single image tokens, and their state cannot be shared; use a model whose layers all attend"
        )


_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def handed(model: PreTrainedModel) -> dict[str, Any]:
    """What the caller of `model.generate` handed to it; empty outside of it.

    `generate` reads the image before it calls its loop, and passes neither pixels nor the text for a Q-Former on.
    Its frame is looked up because hooks would have to stay on the model between two calls.
    """
    frame = sys._getframe(1)
    found: dict[str, Any] = {}
    while frame is not None:
        local = frame.f_locals
        if frame.f_code.co_name == "generate" and local.get("self") is model:
            # Its own variables first: what it was handed by name it may have expanded since.
            found = {**local, **local.get("kwargs", {})}
        frame = frame.f_back  # type: ignore[assignment]
    return found


def image_mask(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Where the image tokens are.

    Args:
        model: its `config.image_token_id` marks them.
        input_ids: (B, S) token ids.

    Returns:
        (B, S) bool.

    Raises:
        IavaError: if a prompt holds no image token.
    """
    mask = input_ids == model.config.image_token_id
    without = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if without:
        raise IavaError(
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
