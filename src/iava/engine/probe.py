"""The attention of the last prompt token, at the price of one row instead of a matrix."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine import hf
from iava.engine.attention import AttentionCall
from iava.engine.boundary import check_served
from iava.engine.prompt import image_mask, pack
from iava.engine.tap import attention_hook
from iava.errors import IavaError


@contextmanager
def last_row(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collects, per decoder layer run inside, the last query's attention: (B, heads, K) float32 each."""
    rows: list[torch.Tensor] = []

    def record(call: AttentionCall) -> torch.Tensor:
        rows.append(call.weights(call.scores))
        return call.run()

    with attention_hook(model, record):
        yield rows


def over_images(rows: list[torch.Tensor], index: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Keeps the image tokens of attention rows.

    Args:
        rows: per layer (B, heads, K), K at least S.
        index, valid: see `prompt.pack`, or `Prompt.images`.

    Returns:
        (B, L, heads, N) float32, N the largest number of image tokens in a row; 0 where a row has fewer.
    """
    stacked = torch.stack([row.to(index.device) for row in rows], dim=1)
    picked = stacked.gather(-1, index[:, None, None].expand(*stacked.shape[:3], -1))
    return picked * valid[:, None, None]


def mean_attention(attention: torch.Tensor, layers: str | Sequence[int]) -> torch.Tensor:
    """Mean over heads and the chosen layers: (B, L, heads, N) -> (B, N).

    Args:
        attention: as `over_images` gives it.
        layers: "all", or layer indices; negative ones count from the last layer.

    Raises:
        IavaError: if the model does not have one of the layers.
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
    """How much attention the last prompt token pays to each image token (att1 and att2 of arXiv 2503.18556).

    The model runs with its own attention function (sdpa, flash, eager). Nothing on it changes.

    Args:
        model: a Hugging Face image-text-to-text model with a causal decoder.
        layers: "all", or the indices of the decoder layers to average over; negative ones count from the end.
        inputs: what the processor returns: `input_ids` (B, S), left padded, `attention_mask`, `pixel_values`, ...

    Returns:
        (B, N) float32, mean over heads and layers, each at least 0, each row's sum at most 1. N is the largest
        number of image tokens in a prompt; a row with fewer ends in zeros.

    Raises:
        IavaError: if the model cannot be served, a prompt has no image tokens, or the model lacks a layer.

    Examples:
        >>> attention = iava.probe(model, **inputs)
        >>> attention.shape
        torch.Size([1, 144])
        >>> bool((attention >= 0).all()), bool(attention.sum() <= 1)
        (True, True)
    """
    check_served(model)
    input_ids = inputs["input_ids"]
    is_image = image_mask(model, input_ids)
    generator: Any = model
    if inputs.get("position_ids") is None:
        inputs["position_ids"] = hf.prompt_positions(model, input_ids, inputs)
    with last_row(model) as rows:
        model(**generator.prepare_inputs_for_generation(is_first_iteration=True, use_cache=False, **inputs))
    return mean_attention(over_images(rows, *pack(is_image)), layers)
