"""A prompt and the same prompt with another text, read in one pass.

Behind the prompt's own columns stand those of the changed text. They attend to the columns that both texts share and to
each other. The prompt's columns attend as they do alone, by the same kernel.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from iava.engine import hf
from iava.engine.attention import AttentionCall
from iava.engine.boundary import causal_mask, run
from iava.engine.branch import Branch
from iava.engine.edit import Edits, edited_row, images_end
from iava.engine.host import Array, to_device
from iava.engine.layout import lay_out
from iava.engine.probe import over_images
from iava.engine.prompt import Prompt
from iava.engine.tap import attention_hook


def read_beside(prompt: Prompt, edits: Sequence[Edits]) -> hf.Outputs | None:
    """Reads prompts, and in the same pass the text behind their images after edits.

    Fills the prompt's cache, its rows and its `beside`.

    Args:
        prompt: with an empty cache, and no rows.
        edits: those of each prompt.

    Returns:
        The model's outputs for the prompts' last tokens. None, with nothing done, where the model reads its prompts
        both ways, an edit stands before an image, or layers look at a part of the columns only.
    """
    mask = prompt.decoder_mask
    plain = mask is None or (isinstance(mask, torch.Tensor) and mask.dim() == 2)
    if not plain or prompt.main.token_types is not None or not hf.takes_additive_mask(prompt.model):
        return None
    both = [edited_row(prompt, row, own) for row, own in enumerate(edits)]
    if any(start < max(images_end(prompt, row), 1) for row, (_, start) in enumerate(both)):
        return None
    beside = lay_out(prompt, [row.from_token(start) for row, start in both])
    ends = np.array([prompt.tokens[row][start - 1] + 1 for row, (_, start) in enumerate(both)])
    length, width = prompt.input_ids.shape[1], beside.embeddings.shape[1]
    own_mask, other_mask, last_mask = _masks(prompt, beside, ends)
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attend(call: AttentionCall) -> torch.Tensor:
        query, key, value = call.query, call.key, call.value
        mine, its_keys, its_values = (part[:, :, :length] for part in (query, key, value))
        own = replace(call, query=mine, key=its_keys, value=its_values, mask=own_mask).run()
        other = replace(call, query=query[:, :, length:], mask=other_mask).run()
        # The last tokens of both texts.
        weights = call.weights(call.scores_of(query[:, :, length - 1 :: width]) + last_mask)
        rows.append((weights[:, :, 0, :length], weights[:, :, 1, :length]))
        return torch.cat([own, other], dim=1)

    grows = isinstance(prompt.cache, DynamicCache)
    cache = prompt.cache if grows else DynamicCache()
    with attention_hook(prompt.model, attend):
        outputs = run(prompt.model, _together(prompt.main, beside), cache, mask=other_mask, last=width + 1)
    outputs.logits = outputs.logits[:, :1]
    layers: list[Any] = cache.layers
    for number, layer in enumerate(layers):
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        if not grows:
            prompt.cache.update(layer.keys, layer.values, number)
    outputs[hf.CACHE] = prompt.cache
    prompt.rows = [own for own, _ in rows]
    prompt.beside = edits, over_images([other for _, other in rows], *prompt.images)
    return outputs


def _together(main: Branch, beside: Branch) -> Branch:
    return replace(
        main,
        embeddings=torch.cat([main.embeddings, beside.embeddings], dim=1),
        positions=torch.cat([main.positions, beside.positions], dim=-1),
        mask=torch.cat([main.mask, beside.mask], dim=1),
        is_image=torch.cat([main.is_image, beside.is_image], dim=1),
    )


def _masks(prompt: Prompt, beside: Branch, ends: Array) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """What the prompts' columns see, (B, 1, S, S); the others', (B, 1, W, S + W); both last ones, (B, 1, 2, S + W)."""
    there, dtype = prompt.host[1], prompt.main.embeddings.dtype
    length, width = there.shape[1], beside.embeddings.shape[1]
    filled = np.arange(width) >= np.array(beside.begins)[:, None]
    sees = np.zeros((len(there), width + 1, length + width), dtype=bool)
    sees[:, :-1, :length] = (there & (np.arange(length) < ends[:, None]))[:, None]
    sees[:, :-1, length:] = np.tri(width, dtype=bool) & filled[:, None]
    sees[:, -1, :length] = there
    sent = to_device(np.where(sees, np.float32(0), np.float32(torch.finfo(dtype).min)), beside.mask.device)[:, None]
    # Without a mask the kernel is the one that the prompts alone are read with.
    alone = there.all() and hf.attention_name(prompt.model.get_decoder().config).endswith("sdpa")
    last = torch.cat([sent[:, :, -1:], sent[:, :, -2:-1]], dim=2)
    return None if alone else causal_mask(prompt.main), sent[:, :, :-1].to(dtype), last
