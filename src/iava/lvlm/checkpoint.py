"""Reading a checkpoint: whatever is wrong with it becomes one line that says what and where."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from iava.errors import IavaError, quoted, reason_of

CONVERTED = {
    "llava_llama": "llava-hf/llava-1.5-7b-hf",
    "llava_mistral": "llava-hf/llava-v1.6-mistral-7b-hf",
    "llava_qwen": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "internvl_chat": "OpenGVLab/InternVL3-8B-hf",
}
"""Model types of checkpoints in their authors' format, and an example of the same family in Hugging Face's."""

# Buffers that older versions of a model saved and newer ones compute.
_COMPUTED = ("position_ids", "inv_freq", "num_batches_tracked")
_SHOWN = 4


def check_config(name: str, trust_remote_code: bool, **hub: Any) -> dict[str, Any]:
    """Refuses a checkpoint that transformers cannot load, before any of it is loaded or run.

    Args:
        name: a folder, or a model id on the Hub.
        trust_remote_code: whether code in the checkpoint may run.
        hub: where and how the Hub is asked.

    Returns:
        The config.

    Raises:
        IavaError: if there is no config, it is broken, the model type is one of `CONVERTED` or unknown, or the
            checkpoint brings code of its own.
    """
    if os.path.isfile(name):
        raise _unknown(name, "this is a file: name the folder that it is in")
    config, _ = guarded(name, lambda: PreTrainedConfig.get_config_dict(name, **hub), known=False)
    if not isinstance(config, dict):
        raise _unknown(name, "its config.json holds no settings")
    kind = config.get("model_type")
    if kind in CONVERTED and not trust_remote_code:
        raise IavaError(
            f"{name!r} is a checkpoint in its authors' format ({kind}): use one that was converted for transformers, "
            f"such as {CONVERTED[kind]}"
        )
    if not config:
        raise _unknown(name, "it has no config.json")
    if config.get("auto_map") and kind not in CONFIG_MAPPING_NAMES and not trust_remote_code:
        raise IavaError(
            f"{name!r} brings code of its own (model type {kind!r}), which is not run: read it, then allow it with "
            "trust_remote_code"
        )
    if not kind:
        raise _unknown(name, "its config.json names no model_type")
    _check_generation_config(name)
    return config


def _check_generation_config(name: str) -> None:
    """Refuses a folder with a broken generation config: transformers reads it as if there were none."""
    try:
        content = json.loads((Path(name) / "generation_config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, RecursionError) as error:
        raise IavaError(f"generation_config.json of {quoted(name, 200)} cannot be read ({reason_of(error)})") from None
    if not isinstance(content, dict):
        raise IavaError(f"generation_config.json of {quoted(name, 200)} holds no settings")


def check_weights(name: str, info: dict[str, Iterable[Any]]) -> None:
    """Refuses a checkpoint that does not hold exactly the weights of the model.

    Args:
        name: of the checkpoint.
        info: what `from_pretrained(output_loading_info=True)` returns beside the model.

    Raises:
        IavaError: names the weights that are missing, unexpected or of another shape.
    """
    shapes = [f"{key} is {_shape(ours)} instead of {_shape(theirs)}" for key, ours, theirs in _mismatched(info)]
    faults = {
        "weights of the wrong shape": shapes,
        "missing weights": list(info.get("missing_keys") or ()),
        "unexpected weights": [key for key in info.get("unexpected_keys") or () if not key.endswith(_COMPUTED)],
        "errors": list(info.get("error_msgs") or ()),
    }
    found = [f"{len(names)} {fault} ({_first_names(names)})" for fault, names in faults.items() if names]
    if found:
        raise IavaError(f"the checkpoint {name!r} does not fit its model: {', '.join(found)}")


def guarded(name: str, load: Callable[[], Any], *, known: bool = True) -> Any:
    """Runs a loader of transformers, which raises whatever it meets in a broken checkpoint.

    Args:
        name: of the checkpoint.
        load: the loader.
        known: whether it is known that there is a model of this name.

    Raises:
        IavaError: one line with the reason.
    """
    try:
        return load()
    except IavaError:
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise _no_memory(name) from None
    except UnpicklingError:
        reason = "its weights are pickled with other things than tensors, which could run code: use safetensors"
        raise IavaError(f"the model {quoted(name, 200)} cannot be loaded ({reason})") from None
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise _no_memory(name) from None
        # What to install stands in a later line.
        reason = reason_of(ValueError(" ".join(str(error).split())) if isinstance(error, ImportError) else error)
        if not known:
            raise _unknown(name, reason) from None
        raise IavaError(f"the model {quoted(name, 200)} cannot be loaded ({reason})") from None


def _no_memory(name: str) -> IavaError:
    return IavaError(f"the model {quoted(name, 200)} does not fit into memory: load it quantized, or with a device_map")


def _unknown(name: str, reason: str) -> IavaError:
    return IavaError(
        f"unknown model {quoted(name, 200)}: use 'pocket', a folder with a model, or the id of an "
        f"image-text-to-text model on the Hugging Face Hub ({reason})"
    )


def _mismatched(info: dict[str, Iterable[Any]]) -> list[tuple[str, Any, Any]]:
    return [tuple(entry) for entry in info.get("mismatched_keys") or ()]


def _shape(shape: Any) -> str:
    return "x".join(str(size) for size in shape)


def _first_names(names: list[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
