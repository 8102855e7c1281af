"""The folder of a run: a manifest that states what is run, and records that only ever grow.

A run can be killed at any moment and continued: a line is whole, or it is cut off when the run continues.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.files import cannot, write_text
from iava.metrics.parts import Record

Check = Callable[[Any], bool]
"""Whether a row has the shape of a record."""


class Records:
    """A JSON-lines file, one record a line, that grows by whole lines.

    Args:
        path: need not exist. A last line that a killed run left incomplete is cut off.
        check: see `read_records`.

    Raises:
        IavaError: if another line is broken, or the file cannot be read or written.
    """

    def __init__(self, path: Path, check: Check = lambda row: isinstance(row, dict)) -> None:
        self.path = path
        self.rows: list[Record] = []
        if path.exists():
            self.rows, whole = read_records(path, check)
            self._cut(whole)

    def _cut(self, size: int) -> None:
        try:
            if size < self.path.stat().st_size:
                os.truncate(self.path, size)
        except OSError as error:
            raise cannot("use", self.path, error) from None

    def append(self, rows: list[Record]) -> None:
        """Appends the rows: all of them, or none.

        Raises:
            IavaError: if they cannot be written, because the disk is full, for example.
        """
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # A lone surrogate has no UTF-8 form; its escape is the same in JSON.
        data = lines.encode("utf-8", "backslashreplace")
        try:
            with open(self.path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    left = memoryview(data)
                    while left:
                        # A full disk may take a part of the data and say so in the return value only.
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise cannot("write", self.path, error) from None
        self.rows += rows


def read_records(path: Path, check: Check) -> tuple[list[Record], int]:
    """The records of a file and the bytes they take. An incomplete line of a killed run may follow them.

    Args:
        check: whether a row has the shape of a record.

    Raises:
        IavaError: if a whole line is broken, two records answer the same, or the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot("use", path, error) from None
    whole = data[: data.rfind(b"\n") + 1]
    rows: list[Record] = []
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise IavaError(f"{path}, line {number}, is no JSON: mend it or start in a new folder") from None
        if not check(row):
            raise IavaError(f"{path}, line {number}, is no record of this run: mend it or start in a new folder")
        rows.append(row)
    return rows, len(whole)


def check_unique(path: Path, rows: Sequence[Record]) -> None:
    """Checks that no question is answered twice by one method.

    Raises:
        IavaError: if one is.
    """
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        first = seen.setdefault((row["id"], row["method"]), number)
        if first != number:
            raise IavaError(
                f"{path}, line {number}: {row['method']} answered {row['id']} before (line {first}): delete one of them"
            )


def open_run(folder: Path, settings: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Creates a run's folder with its manifest, or finds the one that is there.

    Args:
        settings: a run continues the one in the folder only if all of them are equal. None is equal to absent.
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
        manifest = json.loads(path.read_text(encoding="utf-8"))
        there = manifest["settings"]
        if not isinstance(there, dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise IavaError(f"{path} is no manifest of a run: choose another folder") from None
    # Settings that an earlier version did not know are None in its runs.
    old = _flat(dict.fromkeys(settings) | there)
    new = _flat(dict.fromkeys(there) | settings)
    if old == new:
        return manifest
    # A key that only one of them has shows in the list of names that lacks it.
    which = [f"{key} is {old[key]} there, {new[key]} here" for key in old if key in new and old[key] != new[key]]
    raise IavaError(
        f"{folder} holds a run made with other settings ({'; '.join(which)}): delete it, or choose another folder "
        "(--out)"
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
    """Writes a JSON file: the whole new one, or the old one stays.

    Raises:
        IavaError: if it cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
