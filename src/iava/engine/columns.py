"""Choosing some columns of a batch of prompts."""

from typing import Any

import torch


def right_aligned(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The chosen columns of each row in order, at the right: (B, W) index and (B, W) bool, False at the padding."""
    counts = mask.sum(dim=1)
    width = int(counts.max())
    index = mask.long().argsort(dim=1, stable=True)[:, mask.shape[1] - width :]
    return index, torch.arange(width, device=mask.device) >= width - counts[:, None]


def at_columns(inputs: dict[str, Any], index: torch.Tensor, valid: torch.Tensor) -> dict[str, Any]:
    """The inputs of a decoder at some columns only: (B, S, ...) -> (B, W, ...)."""
    embeddings, positions = inputs["inputs_embeds"], inputs["position_ids"]
    chosen = {
        **inputs,
        "inputs_embeds": embeddings.gather(1, index[..., None].expand(-1, -1, embeddings.shape[-1])),
        "position_ids": positions.gather(-1, index.expand(*positions.shape[:-2], *index.shape)),
        "attention_mask": valid.long(),
    }
    if inputs.get("token_type_ids") is not None:
        types = inputs["token_type_ids"]
        chosen["token_type_ids"] = types.gather(1, index).where(valid, types[:, -1:])
    if inputs.get("visual_pos_masks") is not None:
        chosen["visual_pos_masks"] = inputs["visual_pos_masks"].gather(1, index) & valid
    return chosen
