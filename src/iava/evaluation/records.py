"""The folder of a run: a manifest that says what is being run, and records that are only ever added to.

What is written can be killed at any moment and taken up again: a line is whole or it is not there.
"""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from iava.errors import IavaError
from iava.files import cannot, write_text

Record = dict[str, Any]


class Records:
    """A JSON-lines file, one record a line, that grows by whole lines.

    Args:
        path: need not exist. A last line that a killed run left unfinished is cut off.

    Raises:
        IavaError: if another line is broken, or the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Record] = []
        if path.exists():
            self._read()

    def _read(self) -> None:
        self.rows, whole = read_records(self.path)
        try:
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)
        except OSError as error:
            raise cannot("use", self.path, error) from None

    def append(self, rows: list[Record]) -> None:
        """Writes the rows behind the others, all in one go."""
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(data)
        except OSError as error:
            raise cannot("write", self.path, error) from None
        self.rows += rows


def read_records(path: Path) -> tuple[list[Record], int]:
    """The records of a file and how many bytes they take; behind them may be a line that a killed run left unfinished.

    Raises:
        IavaError: if a whole line is broken, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot("use", path, error) from None
    whole = data[: data.rfind(b"\n") + 1]
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise IavaError(f"{path}, line {number}, is no JSON: mend it or start in a new folder") from None
    return rows, len(whole)


def open_run(folder: Path, settings: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Makes a run's folder with its manifest, or finds the one that is there.

    Args:
        settings: what a run must share with the one in the folder to go on with it.
        about: what is written beside it when the run starts.

    Returns:
        The manifest: `about` as it was when the run started, with "settings".

    Raises:
        IavaError: if the folder holds a run with other settings, or cannot be written.
    """
    path = folder / "manifest.json"
    settings = json.loads(json.dumps(settings))
    try:
        if path.exists():
            return _same_run(folder, path, settings)
        if (folder / "records.jsonl").exists():
            raise IavaError(
                f"{folder} holds records without a manifest that says what made them: choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        manifest = {"settings": settings, **about}
        write_json(path, manifest)
    except OSError as error:
        raise cannot("write", folder, error) from None
    return manifest


def _same_run(folder: Path, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text())
        there = manifest["settings"]
    except (ValueError, KeyError, TypeError):
        raise IavaError(f"{path} is no manifest of a run: choose another folder") from None
    if there == settings:
        return manifest
    old, new = _flat(there), _flat(settings)
    # What only one of them has shows in the list of names it is missing from.
    which = [f"{key} is {old[key]} there, {new[key]} here" for key in old if key in new and old[key] != new[key]]
    differ = "; ".join(which)
    raise IavaError(
        f"{folder} holds a run made with other settings ({differ}): delete it, or choose another folder (--out)"
    )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, and for each group the names in it."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {prefix + key: ",".join(value)} | _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def circumstances(model: torch.nn.Module) -> dict[str, Any]:
    """By which command, when, with which versions and on what machine something is measured; ready for JSON."""
    weight = next(model.parameters())
    return {
        "command": command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("iava", "torch", "transformers")}
        | {"python": platform.python_version()},
        "git": git_revision(),
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(weight.device) if weight.is_cuda else str(weight.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
        },
    }


def command() -> str:
    """The command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def fingerprint(model: torch.nn.Module) -> str:
    """Twelve hex digits that change when a model's weights do: of each tensor its name, shape and first values."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_revision() -> str | None:
    """The revision of the checkout this file belongs to, with "-dirty" if it was changed; None outside of one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installed copy may lie inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
