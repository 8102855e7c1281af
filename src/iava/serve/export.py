"""Writes a folder with a checkpoint and a decoding method, for programs that load checkpoints with transformers."""

import os
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from pprint import pformat
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from iava.errors import IavaError
from iava.methods import check_settings

_UNUSED = ["*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*"]
"""Files of a Hub repository that transformers does not load."""
_GENERATE = '''"""Decodes with the method {method!r} of the package iava. Written by `iava export`."""

from typing import Any

from iava.integrations.custom_generate import generate as decode

METHOD = {method!r}
SETTINGS: dict[str, Any] = {settings}


def generate(model: Any, **arguments: Any) -> Any:
    """Decodes as `model.generate` does; `method` and settings of a call replace those above."""
    settings = SETTINGS if arguments.get("method", METHOD) == METHOD else {{}}
    return decode(model, **({{"method": METHOD}} | settings | arguments))
'''


def export(model: str, folder: Path, method: str, settings: Mapping[str, Any], *, copy: bool = False) -> None:
    """Writes a folder that `from_pretrained(folder, trust_remote_code=True)` loads, so that `generate` uses a method.

    Args:
        model: "pocket", a folder, or a model id on the Hugging Face Hub.
        folder: folder to write. It must not exist, or be empty.
        method: command-line name of the method.
        settings: settings that replace the method's defaults.
        copy: whether to copy the files of the checkpoint. Otherwise they are linked.

    Raises:
        IavaError: if there is no such model, the folder is not empty, or the method or a setting is unknown.
    """
    check_settings(method, settings)
    source = _source(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise IavaError(f"{str(folder)!r} is not empty: name a folder that does not exist yet")
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            place = folder / file.relative_to(source)
            if place.relative_to(folder).parts[0] == "custom_generate":
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if copy:
                shutil.copyfile(file, place)
            else:
                # Files in the Hub's cache are links themselves.
                os.symlink(file.resolve(), place)
        made = folder / "custom_generate"
        made.mkdir()
        text = _GENERATE.format(method=method, settings=pformat(dict(settings), sort_dicts=False))
        (made / "generate.py").write_text(text, encoding="utf-8")
        (made / "requirements.txt").write_text("iava\n", encoding="utf-8")
    except OSError as error:
        raise IavaError(f"{str(folder)!r} cannot be written: {error.strerror or error}") from None


def _source(model: str) -> Path:
    if model == "pocket":
        return Path(str(resources.files("iava.pocket") / "weights"))
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise IavaError(f"{model!r} holds no model: there is no config.json in it")
        return Path(model)
    try:
        return Path(snapshot_download(model, ignore_patterns=_UNUSED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise IavaError(
            f"unknown model {model!r}: use 'pocket', a folder with a model, or a model id on the Hugging Face Hub "
            f"({reason})"
        ) from None
