"""Model objects as people hold them: compiled, in parallel wrappers, or with adapters."""

from typing import Any

import torch
from transformers import PreTrainedModel

from iava.errors import IavaError


def unwrapped(model: Any) -> PreTrainedModel:
    """The Hugging Face model inside its wrappers.

    Adapters of PEFT that sit in the model's own layers, such as LoRA, stay active. A compiled model runs as it was
    before compilation.

    Args:
        model: a `PreTrainedModel`, a `PeftModel`, what `torch.compile` returns, or a `DataParallel`,
            `DistributedDataParallel` or similar wrapper with a `module`.

    Raises:
        IavaError: if there is no Hugging Face model inside, or an adapter is prompt learning, whose tokens no other
            branch would read.
    """
    given = model
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "_orig_mod", None)
        if inner is None and hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            inner = _without_adapter(model)
        if inner is None:
            inner = getattr(model, "module", None)
        if not isinstance(model, torch.nn.Module) or not isinstance(inner, torch.nn.Module):
            raise IavaError(
                f"{type(given).__name__} is no Hugging Face model: give a PreTrainedModel, a PeftModel, or a wrapper "
                "of one, or the name of a model"
            )
        model = inner
    return model


def _without_adapter(model: Any) -> Any:
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise IavaError(
            "the adapter is prompt learning, whose tokens are not in the prompt: use an adapter in the model's layers, "
            "such as LoRA"
        )
    return model.get_base_model()
