"""A decoding method of iava that `model.generate(custom_generate=..., trust_remote_code=True)` finds in a folder."""

import dataclasses
from typing import Any

from iava.errors import IavaError
from iava.methods.registry import resolve


def generate(
    model: Any, *, processor: Any = None, tokenizer: Any = None, method: str = "iava", **arguments: Any
) -> Any:
    """What `generate` calls with everything that it was given.

    Args:
        model: the model on which `generate` was called.
        processor: its processor, for methods that write or read text.
        tokenizer: taken for the processor where there is none; reads `stop_strings`.
        method: a method's name, see `iava methods`, or "package.module:Class".
        arguments: the method's settings by name (top_i, lam, alpha, ...), and all that `generate` takes.

    Raises:
        IavaError: if there is no processor, no such method, or a setting is out of range.
    """
    kind = resolve(method)
    processor = tokenizer if processor is None else processor
    if processor is None and "processor" in (field.name for field in dataclasses.fields(kind)):
        raise IavaError("the method needs the model's processor: generate(..., processor=processor)")
    settings = {name: arguments.pop(name) for name in kind().settings() if name in arguments}
    made = kind(**settings).bind(model, processor)
    stop_strings = arguments.pop("stop_strings", None)
    if stop_strings is not None:
        from transformers import StoppingCriteriaList, StopStringCriteria

        reader = processor if tokenizer is None else tokenizer
        criterion = StopStringCriteria(getattr(reader, "tokenizer", reader), stop_strings)
        arguments["stopping_criteria"] = StoppingCriteriaList([*(arguments.get("stopping_criteria") or []), criterion])
    given = {name: value for name, value in arguments.items() if value is not None}
    # Beside a model's weights, `model.generate` is this function.
    return type(model).generate(model, **given, custom_generate=made)
