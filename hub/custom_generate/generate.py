"""IAVA as a decoding method that `model.generate(custom_generate=..., trust_remote_code=True)` finds in a folder."""

import functools
from typing import Any

from iava.methods import METHODS


def generate(model: Any, *, processor: Any = None, method: str = "iava", **arguments: Any) -> Any:
    """What `generate` calls with everything that it was given.

    Args:
        model: the model on which `generate` was called.
        processor: its processor.
        method: a method's name; see `iava.methods.METHODS`.
        arguments: the method's settings by name (top_i, lam, alpha, ...), and all that `generate` takes. A `streamer`
            works, and so do `stop_strings`.

    Raises:
        ValueError: if there is no processor, no such method, or a setting is out of range.
    """
    if processor is None:
        raise ValueError("the method needs the model's processor: generate(..., processor=processor)")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    settings = {name: arguments.pop(name) for name in METHODS[method]().settings() if name in arguments}
    made = METHODS[method](**settings).bind(model, processor)
    streamer, tokenizer = arguments.pop("streamer", None), arguments.pop("tokenizer", None)
    stop_strings = arguments.pop("stop_strings", None)
    if stop_strings is not None:
        from transformers import StoppingCriteriaList, StopStringCriteria

        criterion = StopStringCriteria(tokenizer or processor.tokenizer, stop_strings)
        arguments["stopping_criteria"] = StoppingCriteriaList([*(arguments.get("stopping_criteria") or []), criterion])
    given = {name: value for name, value in arguments.items() if value is not None}
    return model.generate(**given, custom_generate=functools.partial(made, streamer=streamer))
