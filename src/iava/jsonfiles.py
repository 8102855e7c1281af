"""Reading JSON that others wrote: either it is what it should be, or one line says where it is not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iava.errors import IavaError, quoted


def read_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        IavaError: if it cannot be read or is broken; with file, line and column.
    """
    return _parsed(path, read_text(path))


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise IavaError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise IavaError(f"{path} cannot be read as JSON: it is nested too deeply, or a number is too long") from None


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, or of a JSON array. Blank lines are passed over.

    Yields:
        Where an object stands ("answers.jsonl, line 7", or "answers.json, entry 7"), for messages, and the object.

    Raises:
        IavaError: if the file cannot be read, a line or an entry is no JSON object, or there is none.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        yield from _array(path, text)
        return
    empty = True
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise IavaError(f"{where}: this is no JSON, or not all of it") from None
        if not isinstance(row, dict):
            raise IavaError(f"{where}: a line must be one JSON object, such as {{...}}")
        empty = False
        yield where, row
    if empty:
        raise IavaError(f"{path} is empty: it must have one JSON object a line")


def _array(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _parsed(path, text)
    if not isinstance(rows, list):
        raise IavaError(f"{path}: this must be one JSON object a line, or one array of objects")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(row, dict):
            raise IavaError(f"{where}: this must be an object")
        yield where, row
    if not rows:
        raise IavaError(f"{path} is empty: it must have one JSON object a line, or an array of them")


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        IavaError: if it cannot be read or is no UTF-8; with file and line.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise IavaError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise IavaError(f"{path}, line {line}: this is no UTF-8 text") from None


def entries(path: Path, content: Any, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects in a list that is a part of a JSON file's content.

    Yields:
        Where an object stands ("instances.json, images entry 3"), and the object.

    Raises:
        IavaError: if there is no such list, or it holds something else.
    """
    if not isinstance(content, dict) or not isinstance(content.get(part), list):
        raise IavaError(f"{path}: there is no list {part!r}")
    for number, row in enumerate(content[part], start=1):
        where = f"{path}, {part} entry {number}"
        if not isinstance(row, dict):
            raise IavaError(f"{where}: this must be an object")
        yield where, row


def text_of(where: str, row: dict[str, Any], key: str) -> str:
    """A row's string.

    Raises:
        IavaError: if it is missing or no string.
    """
    value = _value(where, row, key)
    if not isinstance(value, str):
        raise IavaError(f"{where}: {key!r} is {quoted(value)}: it must be a string")
    return value


def words_of(where: str, row: dict[str, Any], key: str) -> str:
    """A row's string that is not blank.

    Raises:
        IavaError: if it is missing, blank or no string.
    """
    text = text_of(where, row, key)
    if not text.strip():
        raise IavaError(f"{where}: {key!r} is {quoted(text)}: it must say something")
    return text


def id_of(where: str, row: dict[str, Any], key: str) -> str:
    """A row's id, a string or an integer, as a string.

    Raises:
        IavaError: if it is missing or of another kind.
    """
    value = _value(where, row, key)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise IavaError(f"{where}: {key!r} is {quoted(value)}: it must be a string or an integer")
    return str(value)


def texts_of(where: str, row: dict[str, Any], key: str) -> list[str]:
    """A row's list of strings.

    Raises:
        IavaError: if it is missing or something else.
    """
    value = _value(where, row, key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise IavaError(f"{where}: {key!r} is {quoted(value)}: it must be a list of strings")
    return value


def yes_or_no(where: str, row: dict[str, Any], key: str) -> str:
    """A row's label, "yes" or "no", whatever its case.

    Raises:
        IavaError: if it is missing or something else.
    """
    label = text_of(where, row, key).strip().lower()
    if label not in ("yes", "no"):
        raise IavaError(f"{where}: {key!r} is {quoted(row[key])}: it must be yes or no")
    return label


def _value(where: str, row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise IavaError(f"{where}: {key!r} is missing")
    return row[key]


class Unique:
    """Finds out whether something was there before.

    Args:
        what: what is counted, for the message, such as "question_id".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._seen: dict[str, str] = {}

    def add(self, where: str, name: str) -> None:
        """Takes note of a name.

        Raises:
            IavaError: if it was there before; says where both stand.
        """
        if name in self._seen:
            raise IavaError(f"{where}: {self._what} {name} was there before ({self._seen[name]})")
        self._seen[name] = where
