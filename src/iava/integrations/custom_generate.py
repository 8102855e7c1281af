"""A decoding method as transformers calls it from a checkpoint's folder `custom_generate`."""

from functools import cache, partial
from typing import Any

from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin, StoppingCriteriaList, StopStringCriteria

from iava.methods.registry import check_settings, resolve


def generate(
    model: PreTrainedModel,
    *,
    method: str = "iava",
    processor: ProcessorMixin | None = None,
    tokenizer: Any = None,
    streamer: Any = None,
    stop_strings: str | list[str] | None = None,
    **arguments: Any,
) -> Any:
    """Decodes with a method, whatever calls: `model.generate`, a pipeline, or `transformers serve`.

    Args:
        model: the vision-language model.
        method: command-line name of a method.
        processor: the model's; None loads it from where the model was loaded from.
        tokenizer: for `stop_strings`; None: the processor's.
        streamer: as in any `generate`.
        stop_strings: as in any `generate`.
        arguments: settings of the method by name, and all else that `generate` takes.

    Returns:
        What `generate` returns.

    Raises:
        IavaError: if the method is unknown, or a setting is out of range.
    """
    check_settings(method)
    settings = {name: arguments.pop(name) for name in resolve(method)().settings() if name in arguments}
    processor = processor or _processor(model.config.name_or_path)
    if stop_strings is not None:
        criterion = StopStringCriteria(tokenizer or processor.tokenizer, stop_strings)
        arguments["stopping_criteria"] = StoppingCriteriaList([*(arguments.get("stopping_criteria") or []), criterion])
    made: Any = resolve(method)(**settings).bind(model, processor)
    # The class's own: the model's `generate` is the one that called this. It would drop the streamer.
    family: Any = type(model)
    return family.generate(model, **arguments, custom_generate=partial(made, streamer=streamer))


@cache
def _processor(source: str) -> Any:
    return AutoProcessor.from_pretrained(source)
