"""Hooks that only the context which set them sees.

PyTorch knows hooks by module, and transformers knows attention functions by a name in the decoder's config: both are
shared by all threads. So one dispatching hook stands there while anybody uses it, attached under a lock, counted, and
taken off with its last user. It looks up a `ContextVar`: where nobody in this context asks, it changes nothing.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine import hf
from iava.engine.attention import AttentionCall
from iava.errors import IavaError

Before = Callable[[Any, tuple, dict[str, Any]], tuple[tuple, dict[str, Any]] | None]
"""(module, arguments, keyword arguments) -> both as they shall be; None leaves them."""
After = Callable[[Any, tuple, dict[str, Any], Any], Any]
"""(module, arguments, keyword arguments, output) -> the output as it shall be; None leaves it."""
AttentionHook = Callable[[AttentionCall], torch.Tensor]
"""What answers a layer's attention: (R, Q, heads, d)."""


@dataclass(frozen=True)
class _Hook:
    kind: str
    target: object
    function: Any


@dataclass
class _Attached:
    """What stands on a target. It is kept here, so that its id stays its own."""

    target: object
    detach: Callable[[], None]
    users: int = 0


_hooks: ContextVar[tuple[_Hook, ...]] = ContextVar("hooks", default=())
_attached: dict[tuple[str, int], _Attached] = {}
_tap_lock = threading.Lock()


@contextmanager
def before_forward(module: torch.nn.Module, function: Before) -> Iterator[None]:
    """Shows a module's arguments, and lets them be changed, whenever this context runs the module inside."""
    with _hooked("before", module, function):
        yield


@contextmanager
def after_forward(module: torch.nn.Module, function: After) -> Iterator[None]:
    """Shows a module's output, and lets it be changed, whenever this context runs the module inside."""
    with _hooked("after", module, function):
        yield


@contextmanager
def attention_hook(model: PreTrainedModel, function: AttentionHook) -> Iterator[None]:
    """Lets a function answer every attention call of the decoder that this context makes inside.

    Hooks nest: the last one set is asked first, and its `call.run()` asks the one set before it. The first one's
    `call.run()` is the model's own attention function.

    Args:
        model: a model with a decoder whose attention function transformers dispatches by name.
        function: see `AttentionCall`.

    Raises:
        IavaError: see `check_attention`.
    """
    check_attention(model)
    with _hooked("attention", model.get_decoder().config, function):
        yield


def check_attention(model: PreTrainedModel) -> None:
    """Refuses a model whose attention calls cannot be shown.

    Raises:
        IavaError: if the model attends with flex_attention, whose masks are no tensors.
    """
    if "flex" in hf.attention_name(model.get_decoder().config):
        raise IavaError(
            "the model attends with flex_attention, which shows no attention to single tokens: load the model with "
            "attn_implementation='sdpa'"
        )


@contextmanager
def held(model: PreTrainedModel) -> Iterator[None]:
    """Keeps the hooks of a decoder attached inside, so that they are put there once for many short uses."""
    decoder: Any = model.get_decoder()
    with ExitStack() as stack:
        stack.enter_context(_attachment("before", decoder))
        if "flex" not in hf.attention_name(decoder.config):
            stack.enter_context(_attachment("attention", decoder.config))
        yield


@contextmanager
def _hooked(kind: str, target: object, function: Any) -> Iterator[None]:
    with _attachment(kind, target):
        token = _hooks.set((*_hooks.get(), _Hook(kind, target, function)))
        try:
            yield
        finally:
            _hooks.reset(token)


@contextmanager
def _attachment(kind: str, target: Any) -> Iterator[None]:
    key = kind, id(target)
    with _tap_lock:
        if key not in _attached:
            _attached[key] = _Attached(target, _ATTACH[kind](target))
        _attached[key].users += 1
    try:
        yield
    finally:
        with _tap_lock:
            found = _attached[key]
            found.users -= 1
            if found.users == 0:
                found.detach()
                del _attached[key]


def _attach_before(module: torch.nn.Module) -> Callable[[], None]:
    return module.register_forward_pre_hook(_before, with_kwargs=True).remove


def _attach_after(module: torch.nn.Module) -> Callable[[], None]:
    return module.register_forward_hook(_after, with_kwargs=True).remove


def _attach_attention(config: Any) -> Callable[[], None]:
    found = hf.attention_name(config)
    # The function's name stays in it, because transformers looks for "flash" inside the name.
    name = hf.TAPPED + found
    hf.register_attention(name, found, _dispatching(found))
    hf.set_attention_name(config, name)
    return lambda: hf.set_attention_name(config, found)


_ATTACH = {"before": _attach_before, "after": _attach_after, "attention": _attach_attention}


def _functions_for(kind: str, target: object) -> list[Any]:
    return [hook.function for hook in _hooks.get() if hook.kind == kind and hook.target is target]


# PyTorch enters a hook and its `with_kwargs` in two steps: between them, another thread calls it without the keywords.


def _before(module: torch.nn.Module, args: tuple, *rest: Any) -> tuple[tuple, dict[str, Any]] | None:
    functions = _functions_for("before", module)
    if not functions:
        return None
    kwargs = rest[0]
    for function in functions:
        args, kwargs = function(module, args, kwargs) or (args, kwargs)
    return args, kwargs


def _after(module: torch.nn.Module, args: tuple, *rest: Any) -> Any:
    functions = _functions_for("after", module)
    if not functions:
        return None
    kwargs, output = rest
    for function in functions:
        changed = function(module, args, kwargs, output)
        output = output if changed is None else changed
    return output


def _dispatching(name: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The attention function of that name, for whoever set no hook; all others are shown the call."""

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        kernel = hf.attention_kernel(name, module)
        functions = _functions_for("attention", getattr(module, "config", None))
        if not functions:
            return kernel(module, query, key, value, attention_mask, *args, **kwargs)
        weights: torch.Tensor | None = None

        def run(call: AttentionCall) -> torch.Tensor:
            nonlocal weights
            output, weights = kernel(module, call.query, call.key, call.value, call.mask, *args, **kwargs)
            return output

        if name == "sdpa" and attention_mask is None and 1 < query.shape[2] < key.shape[2]:
            # A static cache is longer than what is in it; without a mask sdpa leaves its empty end out.
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
        layer: Any = module.layer_idx
        call = AttentionCall(layer, query, key, value, attention_mask, kwargs["scaling"], kwargs, run)
        for function in functions[:-1]:
            call = replace(call, answer=_answering(function, call))
        return functions[-1](call), weights

    return attention


def _answering(function: AttentionHook, below: AttentionCall) -> AttentionHook:
    def answer(call: AttentionCall) -> torch.Tensor:
        return function(replace(call, answer=below.answer))

    return answer
