"""Writes files whole or not at all, and checks beforehand whether they can be written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from iava.errors import IavaError


def write_text(path: Path, text: str) -> None:
    """Writes a file as UTF-8. A failure leaves the old file, if any, as it was.

    A lone surrogate, which has no UTF-8 form, becomes its escape; in JSON that is the same text.

    A device or a pipe is written to and never replaced.

    Raises:
        IavaError: if it cannot be written.
    """
    draft = _draft_path(path)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise cannot("write", path, error) from None


def check_folder(folder: Path) -> None:
    """Checks, leaving nothing behind, that files can be written to a folder, which may not exist yet.

    Raises:
        IavaError: if they cannot.
    """
    folder = folder.absolute()
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise cannot("write to", folder, error) from None


def check_file(path: Path) -> None:
    """Checks, leaving nothing behind, that a file can be written in a folder that exists.

    Raises:
        IavaError: if it cannot.
    """
    try:
        if path.is_dir():
            raise IavaError(f"cannot write {path} (Is a directory): name a file")
        if not path.absolute().parent.is_dir():
            raise IavaError(f"cannot write {path} (there is no folder {path.parent}): choose a folder that exists")
        # The draft's name is longer: it may be too long.
        _draft_path(path).exists()
    except OSError as error:
        raise cannot("write", path, error) from None
    check_folder(path.absolute().parent)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns errors of the file system within a block into an `IavaError` about a path."""
    try:
        yield
    except OSError as error:
        place = error.filename or path
        raise IavaError(f"cannot read {place} ({error.strerror or error}): choose a place that can be read") from None


def cannot(do: str, path: Path, error: OSError) -> IavaError:
    """The error about a place that cannot be used."""
    return IavaError(f"cannot {do} {path} ({error.strerror or error}): choose a place where files can be written")


def _draft_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
