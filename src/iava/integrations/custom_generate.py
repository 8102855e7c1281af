"""A decoding method as transformers calls it from a folder `custom_generate`."""

import dataclasses
from functools import cache
from typing import Any

from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin, StoppingCriteriaList, StopStringCriteria

from iava.errors import IavaError
from iava.methods.registry import resolve


def generate(
    model: PreTrainedModel,
    *,
    method: str = "iava",
    processor: ProcessorMixin | None = None,
    tokenizer: Any = None,
    stop_strings: str | list[str] | None = None,
    custom_generate: Any = None,
    **arguments: Any,
) -> Any:
    """Decodes with a method, whatever calls: `model.generate`, a pipeline, or `transformers serve`.

    Args:
        model: the model on which `generate` was called.
        method: a method's name, see `iava methods`, or "package.module:Class".
        processor: the model's. None: `tokenizer`, if that is a processor, or the one in the checkpoint's folder.
        tokenizer: for `stop_strings`; None: the processor's.
        stop_strings: as in any `generate`.
        custom_generate: another loop, which the call asks for; `method` is then left out.
        arguments: settings of the method by name (top_i, lam, alpha, ...), and all else that `generate` takes.

    Returns:
        What `generate` returns.

    Raises:
        IavaError: if the method is unknown, a setting is out of range, or the method needs a processor that is nowhere.
    """
    # The class's own: beside a model's weights, `model.generate` is this function.
    family: Any = type(model)
    if processor is None and hasattr(tokenizer, "tokenizer"):
        processor = tokenizer
    if custom_generate is None:
        kind = resolve(method)
        if processor is None and "processor" in (field.name for field in dataclasses.fields(kind)):
            processor = _load_processor(model.config.name_or_path)
        settings = {name: arguments.pop(name) for name in kind().settings() if name in arguments}
        # A method without text needs none.
        custom_generate = kind(**settings).bind(model, processor)  # type: ignore[arg-type]
    if stop_strings is not None:
        reader: Any = tokenizer or processor
        if reader is None:
            raise IavaError("stop_strings are read with a tokenizer: generate(..., tokenizer=processor.tokenizer)")
        criterion = StopStringCriteria(getattr(reader, "tokenizer", reader), stop_strings)
        arguments["stopping_criteria"] = StoppingCriteriaList([*(arguments.get("stopping_criteria") or []), criterion])
    return family.generate(model, **arguments, custom_generate=custom_generate)


@cache
def _load_processor(source: str) -> Any:
    try:
        return AutoProcessor.from_pretrained(source)
    except (OSError, ValueError):
        raise IavaError(
            f"the method needs the model's processor, and there is none in {source!r}: "
            "generate(..., processor=processor)"
        ) from None
