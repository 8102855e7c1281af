"""The decoder boundary: what a vision-language model feeds its language model, captured and fed again.

Every Hugging Face image-text-to-text model with a causal decoder ends in one call of `model.get_decoder()`
with ready embeddings, positions and mask. Because the engine works at that call, one engine serves every family.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import Cache, PreTrainedModel

from iava.engine import hf
from iava.engine.branch import Branch
from iava.engine.host import Array, to_device
from iava.engine.tap import before_forward
from iava.errors import IavaError

# They belong to one run of the decoder, not to what the decoder is fed.
_RUN_ONLY = (hf.CACHE, "use_cache", "input_ids", "output_attentions", "output_hidden_states")
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class _AtTheBoundary(Exception):  # noqa: N818
    """Ends a forward pass before its decoder."""


@contextmanager
def capture(model: PreTrainedModel, *, stop: bool = False) -> Iterator[dict[str, Any]]:
    """Collects, in the dict that it yields, the keyword arguments of the decoder's next call.

    Args:
        model: the model to watch.
        stop: end the forward pass before the decoder runs, and go on behind the `with`.
    """
    inputs: dict[str, Any] = {}

    def record(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Any]) -> None:
        inputs.update({key: value for key, value in kwargs.items() if key not in _RUN_ONLY})
        if stop:
            raise _AtTheBoundary

    try:
        with before_forward(model.get_decoder(), record):
            yield inputs
    except _AtTheBoundary:
        pass


def run(
    model: PreTrainedModel,
    branch: Branch,
    cache: Cache | None = None,
    *,
    mask: torch.Tensor | None = None,
    last: int = 1,
) -> hf.Outputs:
    """Runs the whole model with the decoder's inputs given; `.logits` is (B, last, V).

    The outer model runs, not the decoder alone. Only it knows what lies between the last hidden state and the logits
    (heads, scaling, soft caps), and which tokens of a prompt see each other both ways.

    Args:
        model: the model that runs the decoding loop.
        branch: what the decoder is fed; its prefix, if it has one, is filled.
        cache: filled where the branch has no prefix; None keeps nothing.
        mask: what the decoder's layers are given, (B, 1, Q, K); None: a causal one behind what the branch's mask shows.
        last: of so many tokens the logits are wanted.
    """
    cache = cache if branch.prefix is None else branch.prefix
    if mask is None:
        full = branch.token_types is None and hf.takes_additive_mask(model, cache)
        mask = causal_mask(branch) if full else branch.mask
    outer = {
        "inputs_embeds": branch.embeddings,
        "attention_mask": mask,
        "position_ids": branch.positions,
    }
    if branch.token_types is not None:
        outer["token_type_ids"] = branch.token_types

    def feed(_module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, **branch.decoder_inputs()}

    with before_forward(model.get_decoder(), feed):
        return model(**outer, **{hf.CACHE: cache}, use_cache=cache is not None, logits_to_keep=last, return_dict=True)


def causal_mask(branch: Branch) -> torch.Tensor:
    """(B, 1, W, P + W): 0 where a token may look, the lowest number elsewhere."""
    columns, dtype = branch.mask.shape[1], branch.embeddings.dtype
    ahead = np.triu(np.ones((columns, columns), dtype=np.float32), 1)[branch.prefix_width :]
    # One addition for all layers; each of them would make one of a mask of yes and no.
    hidden = to_device(ahead, branch.mask.device) + (branch.mask == 0)[:, None, None]
    return (hidden * torch.finfo(dtype).min).clamp(min=torch.finfo(dtype).min).to(dtype)


def sees_ahead(mask: Any, columns: Array) -> bool:
    """Whether the token at a row's column, of (B,), may see later ones under the decoder's mask.

    A decoder that is given the plain padding mask, or none, makes a causal one of it.
    """
    if isinstance(mask, dict):
        return any(sees_ahead(part, columns) for part in mask.values())
    if mask is None or (isinstance(mask, torch.Tensor) and mask.dim() == 2):
        return False
    if not isinstance(mask, torch.Tensor):
        return True
    at = to_device(columns, mask.device)
    row = mask[torch.arange(len(at), device=mask.device), 0, at]
    seen = row if row.dtype == torch.bool else row > torch.finfo(row.dtype).min / 2
    later = torch.arange(row.shape[-1], device=mask.device) > at[:, None]
    return bool((seen & later).any())


def check_served(model: PreTrainedModel) -> None:
    """Refuses models that have no causal decoder with image tokens in its sequence.

    Raises:
        IavaError: names the reason.
    """
    kind, config = model.config.model_type, model.config.get_text_config()
    if model.config.is_encoder_decoder or config.is_encoder_decoder:
        raise IavaError(
            f"{kind} is an encoder-decoder: its image tokens are in the encoder, not in the decoder's sequence; "
            "use a model with a causal decoder"
        )
    if getattr(config, "cross_attention_layers", None):
        raise IavaError(
            f"{kind} reads the image by cross-attention: there are no image tokens in the decoder's sequence to "
            "select; use a model that puts them there"
        )
    kinds = set(getattr(config, "layer_types", None) or ()) - _ATTENTION
    if kinds:
        raise IavaError(
            f"{kind} has layers of another kind than attention ({', '.join(sorted(kinds))}), which do not attend to "
            "single image tokens; use a model whose layers all attend"
        )
