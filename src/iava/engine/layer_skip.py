"""Contrast logits out of one layer: what its attention gives the last token skips all layers but the last.

They cost an output projection, one token in the last layer and one in the head, and the model runs once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine import hf
from iava.engine.attention import AttentionCall
from iava.engine.tap import after_forward, attention_hook


@contextmanager
def layer_skip_logits(
    model: PreTrainedModel,
    layer: int,
    give: Callable[[AttentionCall], torch.Tensor],
    *,
    residual: float,
    share: float,
    norm: bool,
) -> Iterator[None]:
    """Makes the decoder give twice as many rows inside: its own, then those of the skipped layers.

    With g the output projection of what `give` answers, h the last layer's input and y the decoder's own output, all at
    the last token: x = residual * h + norm(g), or without `norm` residual * h + g, then x + mlp(norm(x)) with the last
    layer's norms and mlp, then the decoder's final norm, plus share * y.

    Args:
        model: with a decoder of which `layers` is the list of its layers, each with a `self_attn`.
        layer: from 0; not the last one.
        give: for the layer's call, (R, heads, d): what its heads give the last token.
    """
    decoder: Any = model.get_decoder()
    first, last = decoder.layers[layer], decoder.layers[-1]
    state: dict[str, torch.Tensor] = {}
    # Whether a module runs once more, for the skipping token alone; with it, what the last layer's attention adds to.
    again = False
    replaced: Callable[[dict[str, Any]], torch.Tensor] | None = None

    def attend(call: AttentionCall) -> torch.Tensor:
        if again:
            return state["heads"]
        if call.layer == layer:
            state["heads"] = give(call)[:, None]
        return call.run()

    def project(module: Any, _args: tuple, kwargs: dict[str, Any], _output: Any) -> None:
        nonlocal again
        again = True
        state["skipping"] = module.forward(**_last_token(kwargs))[0]
        again = False

    def replace(_module: Any, _args: tuple, kwargs: dict[str, Any], attended: Any) -> Any:
        return None if replaced is None else (replaced(kwargs), *attended[1:])

    def finish(module: Any, args: tuple, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        nonlocal again, replaced
        own = (args[0] if args else kwargs["hidden_states"])[:, -1:]
        into = state["skipping"].to(own)

        def replacement(named: dict[str, Any]) -> torch.Tensor:
            # The layer adds this to `into`; what it attended to does not matter.
            return residual * own + (named["hidden_states"] - into if norm else 0)

        again, replaced = True, replacement
        try:
            second = module.forward(into, **_last_token({k: v for k, v in kwargs.items() if k != "hidden_states"}))
        finally:
            again, replaced = False, None
        return torch.cat([output, second.expand(-1, output.shape[1], -1)])

    def mix(_module: Any, _args: tuple, _kwargs: dict[str, Any], output: Any) -> Any:
        own, second = output.last_hidden_state.chunk(2)
        output.last_hidden_state = torch.cat([own, second + share * own])
        return output

    with ExitStack() as stack:
        stack.enter_context(after_forward(first.self_attn, project))
        stack.enter_context(after_forward(last.self_attn, replace))
        stack.enter_context(after_forward(last, finish))
        stack.enter_context(after_forward(decoder, mix))
        stack.enter_context(attention_hook(model, attend))
        yield


def _last_token(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A layer's arguments, for its last token by itself: no cache to fill, nothing else to look at."""
    one = {**kwargs, "attention_mask": None, hf.CACHE: None}
    if "hidden_states" in one:
        one["hidden_states"] = one["hidden_states"][:, -1:]
    if one.get("position_embeddings") is not None:
        one["position_embeddings"] = tuple(part[..., -1:, :] for part in one["position_embeddings"])
    if one.get("position_ids") is not None:
        one["position_ids"] = one["position_ids"][..., -1:]
    return one
