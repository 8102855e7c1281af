"""The attention of the last prompt token, at the price of one row instead of a matrix.

The decoder's attention is switched, for one forward pass, to a function that calls the kernel the model already
uses and, beside it, computes softmax(q_last K^T). The model never runs in eager mode for it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iava.engine.boundary import check_served, image_mask, pack
from iava.errors import IavaError

# Bound to one thread and one open probe; the registered functions themselves hold no state.
_open_rows: ContextVar[list[torch.Tensor]] = ContextVar("open_rows")


@contextmanager
def last_row(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collects, per decoder layer run inside, the last query's attention: (B, heads, K) float32 each."""
    config = model.get_decoder().config
    implementation = config._attn_implementation
    rows: list[torch.Tensor] = []
    token = _open_rows.set(rows)
    try:
        config._attn_implementation = _registered(implementation)
        yield rows
    finally:
        config._attn_implementation = implementation
        _open_rows.reset(token)


def _registered(implementation: str) -> str:
    """The name under which the model's own kernel plus the last row is known to transformers."""
    # The kernel's name stays in it, because transformers looks for "flash" inside the name.
    name = f"last_row_{implementation}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
        AttentionInterface.register(name, _with_last_row(implementation))
    return name


def _with_last_row(implementation: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *args: Any,
        scaling: float,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Eager attention is the one kernel that each modelling file defines for itself.
        eager = sys.modules[type(module).__module__].eager_attention_forward
        kernel = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
        queries = query.shape[2]
        # A static cache is longer than what is in it; sdpa, too, leaves its empty end out where it gets no mask.
        empty_end = implementation == "sdpa" and attention_mask is None and 1 < queries < key.shape[2]
        row = attention_row(
            query,
            key[:, :, :queries] if empty_end else key,
            attention_mask,
            scaling,
            softcap=kwargs.get("softcap"),
            sinks=kwargs.get("s_aux"),
            window=kwargs.get("sliding_window"),
        )
        _open_rows.get().append(row)
        return kernel(module, query, key, value, attention_mask, *args, scaling=scaling, **kwargs)

    return attend


def attention_row(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Softmax of the last query over all keys.

    Args:
        query: (B, heads, Q, d).
        key: (B, key heads, K, d); each key head serves heads / key heads queries.
        mask: None (every key may be seen), (B, K) 1 or 0, or (B, 1, Q, K), bool (True: may be seen) or added.
        scaling: factor on the dot products.
        softcap: scores are squeezed to softcap * tanh(score / softcap).
        sinks: (heads,) scores of a key that takes attention and gives nothing.
        window: the last query sees this many keys at most; a four-dimensional mask says so itself.

    Returns:
        (B, heads, K) float32.
    """
    scores = last_scores(query, key, mask, scaling, softcap=softcap, window=window)
    return weights_of(scores, sinks)


def last_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """What the last query's softmax is taken of: (B, heads, K) float32, -inf at keys that it may not see.

    Args: see `attention_row`.
    """
    batch, heads, _, width = query.shape
    last = query[:, :, -1].view(batch, key.shape[1], -1, width)
    scores = (last @ key.transpose(-1, -2)).float().view(batch, heads, -1) * scaling
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if mask is not None:
        row = mask[:, None] if mask.dim() == 2 else mask[:, :, -1]
        row = row[..., : scores.shape[-1]]
        if row.is_floating_point():
            scores = scores + row
            row = row > torch.finfo(row.dtype).min / 2
        scores = scores.masked_fill(~row.bool(), float("-inf"))
    if window is not None and (mask is None or mask.dim() == 2):
        scores[..., : max(scores.shape[-1] - window, 0)] = float("-inf")
    return scores


def weights_of(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the keys: (B, heads, K) -> (B, heads, K); `sinks` as in `attention_row`."""
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float().view(1, -1, 1).expand(len(scores), -1, 1)
    return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]


def over_images(rows: list[torch.Tensor], is_image: torch.Tensor) -> torch.Tensor:
    """Keeps the image tokens of attention rows.

    Args:
        rows: per layer (B, heads, K), K at least S.
        is_image: (B, S) bool.

    Returns:
        (B, L, heads, N) float32, N the largest number of image tokens in a row; 0 where a row has fewer.
    """
    index, valid = pack(is_image)
    stacked = torch.stack([row.to(index.device) for row in rows], dim=1)
    picked = stacked.gather(-1, index[:, None, None].expand(*stacked.shape[:3], -1))
    return picked * valid[:, None, None]


def mean_attention(attention: torch.Tensor, layers: str | Sequence[int]) -> torch.Tensor:
    """Mean over heads and the chosen layers: (B, L, heads, N) -> (B, N).

    Args:
        attention: as `over_images` gives it.
        layers: "all", or layer indices; negative ones count from the last layer.

    Raises:
        IavaError: if a layer is not there.
    """
    if layers == "all":
        return attention.mean(dim=(1, 2))
    count = attention.shape[1]
    for layer in layers:
        if not -count <= int(layer) < count:
            raise IavaError(f"layers names layer {layer}, but the model has {count}: use {-count} to {count - 1}")
    return attention[:, [int(layer) for layer in layers]].mean(dim=(1, 2))


@torch.no_grad()
def probe(model: PreTrainedModel, *, layers: str | Sequence[int] = "all", **inputs: Any) -> torch.Tensor:
    """How much attention the last prompt token pays to each image token (the paper's att1, att2).

    The model runs in its own attention implementation (sdpa, flash, eager), which is left as found.

    Args:
        model: a Hugging Face image-text-to-text model with a causal decoder.
        layers: "all", or the indices of the decoder layers to average over; negative ones count from the end.
        inputs: what the processor returns: `input_ids` (B, S), left padded, `attention_mask`, `pixel_values`, ...

    Returns:
        (B, N) float32, mean over heads and layers, each at least 0, each row's sum at most 1. N is the largest
        number of image tokens in a prompt; a row with fewer ends in zeros.

    Raises:
        IavaError: if the model cannot be served, a prompt has no image tokens, or a layer is not there.
    """
    check_served(model)
    input_ids = inputs["input_ids"]
    is_image = image_mask(model, input_ids)
    with unchanged(model), last_row(model) as rows:
        generator: Any = model
        if inputs.get("position_ids") is None:
            # A model's forward numbers the padding too; generate does not.
            inputs["position_ids"] = generator._prepare_position_ids_for_generation(input_ids, inputs)
        model(**generator.prepare_inputs_for_generation(is_first_iteration=True, use_cache=False, **inputs))
    return mean_attention(over_images(rows, is_image), layers)


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    """Puts back what some families keep on the model from one call to the next: the offset of their 3-D positions."""
    inner: Any = model.base_model
    has = hasattr(inner, "rope_deltas")
    before = getattr(inner, "rope_deltas", None)
    try:
        yield
    finally:
        if has:
            inner.rope_deltas = before
