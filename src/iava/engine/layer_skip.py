"""A second answer out of one layer: what a layer's attention gives the last token, carried to the logits by itself.

Everything between that layer and the last one is skipped, so the second answer costs an output projection, one token in
the last layer and one in the head, and the model runs once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine.attention import Call, steered


@contextmanager
def carried(
    model: PreTrainedModel,
    layer: int,
    give: Callable[[Call], torch.Tensor],
    *,
    residual: float,
    share: float,
) -> Iterator[None]:
    """Makes the decoder give twice as many rows inside: its own, then the carried ones.

    With g the output projection of what `give` answers, h the last layer's input and y the decoder's own output, all at
    the last token: x = residual * h + norm(g), then x + mlp(norm(x)) with the last layer's norms and mlp, then
    the decoder's final norm, plus share * y.

    Args:
        layer: from 0; not the last one.
        give: (R, heads, d) what the layer's heads are to give the last token, for the layer's call.
    """
    decoder: Any = model.get_decoder()
    first, last = decoder.layers[layer], decoder.layers[-1]
    state: dict[str, torch.Tensor] = {}
    again = False

    def attend(call: Call) -> torch.Tensor:
        if again:
            return state["heads"]
        if call.layer == layer:
            state["heads"] = give(call)[:, None]
        return call.run()

    def project(module: Any, _args: Any, kwargs: dict[str, Any], _output: Any) -> None:
        nonlocal again
        again = True
        state["carried"] = module.forward(**_one_token(kwargs))[0]
        again = False

    def finish(module: Any, args: Any, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        nonlocal again
        own = (args[0] if args else kwargs["hidden_states"])[:, -1:]
        into = state["carried"].to(own)

        def replace(_module: Any, _args: Any, named: dict[str, Any], attended: Any) -> Any:
            # The layer adds this to `into`; what it attended to does not matter.
            return (residual * own + named["hidden_states"] - into, *attended[1:])

        handle = module.self_attn.register_forward_hook(replace, with_kwargs=True)
        again = True
        try:
            second = module.forward(into, **_one_token({k: v for k, v in kwargs.items() if k != "hidden_states"}))
        finally:
            handle.remove()
        again = False
        return torch.cat([output, second.expand(-1, output.shape[1], -1)])

    def mix(_module: Any, _args: Any, output: Any) -> Any:
        own, second = output.last_hidden_state.chunk(2)
        output.last_hidden_state = torch.cat([own, second + share * own])
        return output

    handles = [
        first.self_attn.register_forward_hook(project, with_kwargs=True),
        last.register_forward_hook(finish, with_kwargs=True),
        decoder.register_forward_hook(mix),
    ]
    try:
        with steered(model, attend):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _one_token(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A layer's arguments, for its last token by itself: no cache to fill, nothing else to look at."""
    one = {**kwargs, "attention_mask": None, "past_key_values": None}
    if "hidden_states" in one:
        one["hidden_states"] = one["hidden_states"][:, -1:]
    if one.get("position_embeddings") is not None:
        one["position_embeddings"] = tuple(part[..., -1:, :] for part in one["position_embeddings"])
    if one.get("position_ids") is not None:
        one["position_ids"] = one["position_ids"][..., -1:]
    return one
