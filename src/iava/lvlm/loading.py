"""Loading a model, whatever it is given as."""

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ResolvedRevision
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils.hub import resolve_revision

from iava.errors import IavaError
from iava.lvlm.model import LVLM


def load(
    model: str | Path | PreTrainedModel,
    processor: ProcessorMixin | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> LVLM:
    """Loads a vision-language model.

    Args:
        model: "pocket" (the small model that ships with this package), a folder, a model id on the Hugging Face Hub,
            or a model that is already there.
        processor: for a model that is already there.
        device: None takes a GPU if there is one. A model that is already there stays where it is unless told.
        dtype: None takes the checkpoint's on a GPU and float32 on a CPU. A model that is already there keeps its own.

    Returns:
        The model with its processor, ready to be asked.

    Raises:
        IavaError: if there is no such model, or it is not an image-text-to-text model.

    Example:
        >>> lvlm = iava.load("pocket")
        >>> lvlm = iava.load(model, processor)
        >>> type(lvlm).__name__
        'LVLM'
    """
    if isinstance(model, PreTrainedModel):
        if processor is None:
            raise IavaError("a model object needs its processor: load(model, processor)")
        return LVLM(_moved(model, device, dtype), processor)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("auto" if torch.device(device).type != "cpu" else torch.float32)
    source = str(resources.files("iava.pocket") / "weights") if model == "pocket" else str(model)
    revision = resolve_revision(source)
    try:
        loaded = AutoModelForImageTextToText.from_pretrained(source, revision=revision, dtype=dtype)
        # Pillow everywhere: torchvision, where it is installed, resizes otherwise, and not in every way.
        loaded_processor = AutoProcessor.from_pretrained(source, revision=revision, backend="pil")
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise IavaError(
            f"unknown model {str(model)!r}: use 'pocket', a folder with a model, or the id of an image-text-to-text "
            f"model on the Hugging Face Hub ({reason})"
        ) from None
    commit = revision.resolved if isinstance(revision, ResolvedRevision) else None
    return LVLM(_moved(loaded, device), loaded_processor, commit)


def _moved(model: nn.Module, device: str | torch.device | None, dtype: str | torch.dtype | None = None) -> Any:
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return model.to(device=device, dtype=dtype) if device or dtype else model
