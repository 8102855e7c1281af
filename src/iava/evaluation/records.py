"""The folder of a run: a manifest that states what is run, and records that only ever grow.

A run can be killed at any moment and continued: a line is whole, or it is cut off when the run continues.
"""

import json
import os
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.files import cannot, write_text
from iava.metrics.parts import Record


class Records:
    """A JSON-lines file, one record a line, that grows by whole lines.

    Args:
        path: need not exist. A last line that a killed run left incomplete is cut off.

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
        """Appends the rows in one write."""
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        try:
            with open(self.path, "ab", buffering=0) as file:
                file.write(data)
        except OSError as error:
            raise cannot("write", self.path, error) from None
        self.rows += rows


def read_records(path: Path) -> tuple[list[Record], int]:
    """The records of a file and the bytes they take. An incomplete line of a killed run may follow them.

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
    """Creates a run's folder with its manifest, or finds the one that is there.

    Args:
        settings: a run continues the one in the folder only if all of them are equal.
        about: what the manifest records beside them when the run starts.

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
    # A key that only one of them has shows in the list of names that lacks it.
    which = [f"{key} is {old[key]} there, {new[key]} here" for key in old if key in new and old[key] != new[key]]
    differ = "; ".join(which)
    raise IavaError(
        f"{folder} holds a run made with other settings ({differ}): delete it, or choose another folder (--out)"
    )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, and the list of names of each group."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= {prefix + key: ",".join(value)} | _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file: the whole new one, or the old one stays."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
