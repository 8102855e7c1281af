"""Loading a model from a name, a folder or an object."""

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, ProcessorMixin

from iava.engine.wrappers import unwrapped
from iava.errors import IavaError
from iava.lvlm.checkpoint import check_config, check_weights, guarded
from iava.lvlm.images import MAX_PIXELS
from iava.lvlm.legacy import fill_in
from iava.lvlm.model import LVLM
from iava.lvlm.remote import Remote


def load(
    model: str | Path | torch.nn.Module,
    processor: ProcessorMixin | None = None,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    quantization: Any = None,
    attn_implementation: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    max_pixels: int = MAX_PIXELS,
    remote: Remote = False,
) -> LVLM:
    """Loads a vision-language model.

    Args:
        model: "pocket" (the small model in this package), a folder, a model id on the Hugging Face Hub, or a model
            object: a `PreTrainedModel`, a `PeftModel`, a compiled model, or a `DataParallel` or similar wrapper.
        processor: of a model object.
        revision: branch, tag or commit on the Hub.
        dtype: such as "bfloat16". None: the checkpoint's on a GPU, float32 on a CPU. A model object keeps its own.
        device: such as "cuda:1". None: a GPU if there is one. A model object stays where it is.
        device_map: places parts on devices, as in `from_pretrained`: "auto", or part -> device, "cpu" or "disk". Needs
            accelerate. Parts on disk lie in a temporary folder for the lifetime of the model.
        quantization: "4bit" or "8bit" (needs bitsandbytes), or a quantization config of transformers. A checkpoint that
            was saved quantized needs none.
        attn_implementation: such as "sdpa" or "flash_attention_2".
        token: for private repositories on the Hub.
        cache_dir: where downloads are kept.
        local_files_only: use what is in the cache and never ask the Hub.
        trust_remote_code: whether code that a checkpoint brings may run. Nobody is asked on the terminal.
        max_pixels: largest width times height of an image.
        remote: whether images may be fetched from http(s) addresses; see `read_image`.

    Returns:
        The model with its processor.

    Raises:
        IavaError: if there is no such model, it is not an image-text-to-text model, its weights are broken or do not
            fit it, it brings code that may not run, an option does not go with another, or a package is missing.

    Examples:
        >>> lvlm = iava.load("pocket")
        >>> lvlm = iava.load(model, processor)
        >>> type(lvlm).__name__
        'LVLM'
    """
    limits: dict[str, Any] = {"max_pixels": max_pixels, "remote": remote}
    if not isinstance(model, str | Path):
        if processor is None:
            raise IavaError("a model object needs its processor: load(model, processor)")
        for name, value in (("device_map", device_map), ("quantization", quantization), ("revision", revision)):
            if value is not None:
                raise IavaError(f"{name} belongs to a model given by name, not to an object")
        return LVLM(_moved(unwrapped(model), device, dtype), processor, **limits)
    if device is not None and device_map is not None:
        raise IavaError("device and device_map exclude each other: give one")
    name = str(resources.files("iava.pocket") / "weights") if str(model) == "pocket" else str(model)
    if revision is not None and os.path.exists(name):
        raise IavaError(f"revision is {revision!r}, but {model} is not on the Hub: leave it out")
    hub: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    config = check_config(name, trust_remote_code, revision=revision, **hub)
    # All files come from one commit, even if the repository changes while they are read.
    commit = None if os.path.exists(name) else guarded(name, lambda: _commit(name, revision, **hub))
    hub |= {"revision": commit or revision, "trust_remote_code": trust_remote_code}
    quantized = quantization is not None or config.get("quantization_config") is not None
    options, folder = _loading_options(device, dtype, device_map, quantization, quantized)
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    found, info = guarded(
        name,
        lambda: AutoModelForImageTextToText.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options, **hub
        ),
    )
    if folder is not None:
        weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    check_weights(name, info)
    # Pillow everywhere: torchvision, where it is installed, resizes otherwise, and not in every way.
    found_processor = guarded(name, lambda: AutoProcessor.from_pretrained(name, backend="pil", **hub))
    saved, _ = guarded(name, lambda: type(found_processor).get_processor_dict(name, **hub))
    fill_in(name, found, found_processor, saved)
    if "device_map" not in options:
        found = guarded(name, lambda: found.to(find_device(device)))
    return LVLM(found, found_processor, commit, **limits)


def model_type(
    model: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    **_others: Any,
) -> str:
    """The family of a model, such as "llava", from its config alone; "pocket" for the pocket model.

    Args: those of `load`; the others are ignored.

    Raises:
        IavaError: if there is no such model, or it cannot be loaded.
    """
    if model == "pocket":
        return model
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    return str(check_config(model, trust_remote_code, **hub)["model_type"])


def _commit(name: str, revision: str | None, **hub: Any) -> str:
    """The commit of a model on the Hub, read off the place of its config in the cache."""
    return Path(hf_hub_download(name, "config.json", revision=revision, **hub)).parent.name


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of a name such as "cuda:1". None: a GPU if there is one, else the CPU.

    Raises:
        IavaError: if torch knows no such device, or finds no GPU.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise IavaError(f"device is {device!r}: it must be a device of torch, such as cpu, cuda or cuda:1") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise IavaError(f"device is {str(device)!r}, but torch finds no GPU here: use cpu")
    return found


def _dtype(dtype: str | torch.dtype) -> Any:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if found != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise IavaError(f'dtype is {dtype!r}: it must be "float32", "bfloat16", "float16" or "auto"')
    return found


def _loading_options(
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    device_map: str | Mapping[str, Any] | None,
    quantization: Any,
    quantized: bool,
) -> tuple[dict[str, Any], str | None]:
    """What `from_pretrained` is told of numbers and places, and the folder for parts on disk, if any."""
    place = find_device(device)
    options: dict[str, Any] = {"dtype": _dtype(dtype or ("auto" if place.type != "cpu" else "float32"))}
    if quantization is not None:
        options["quantization_config"] = _quantization(quantization, options["dtype"])
    if device_map is not None:
        folder = tempfile.mkdtemp(prefix="iava-offload-")
        placed = device_map if isinstance(device_map, str) else dict(device_map)
        return options | {"device_map": placed, "offload_folder": folder}, folder
    if quantized:
        # bitsandbytes repeats for each product that inputs are cast.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        # Quantized weights cannot be moved afterwards.
        options["device_map"] = {"": place}
    return options, None


def _quantization(quantization: Any, dtype: Any) -> Any:
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if quantization == "4bit":
        compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    if isinstance(quantization, Mapping) or hasattr(quantization, "quant_method"):
        return quantization
    raise IavaError(f'quantization is {quantization!r}: it must be "4bit", "8bit" or a quantization config')


def _moved(model: Any, device: str | torch.device | None, dtype: str | torch.dtype | None) -> Any:
    if device is None and dtype is None:
        return model
    place = None if device is None else find_device(device)
    kind = None if dtype is None else _dtype(dtype)
    return guarded(type(model).__name__, lambda: model.to(device=place, dtype=None if kind == "auto" else kind))
