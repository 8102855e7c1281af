"""Writing files so that nothing is ever half there, and finding out beforehand whether they can be written."""

import os
import tempfile
from pathlib import Path

from iava.errors import IavaError


def write_text(path: Path, text: str) -> None:
    """Writes a file as UTF-8. A failure leaves the old file, if any, as it was.

    A device or a pipe is written to and never replaced.

    Raises:
        IavaError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise cannot("write", path, error) from None


def check_folder(folder: Path) -> None:
    """Finds out, leaving nothing behind, whether files can be written to a folder that may not exist yet.

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
    """Finds out, leaving nothing behind, whether a file can be written in a folder that exists.

    Raises:
        IavaError: if it cannot.
    """
    if path.is_dir():
        raise IavaError(f"cannot write {path} (Is a directory): name a file")
    if not path.absolute().parent.is_dir():
        raise IavaError(f"cannot write {path} (there is no folder {path.parent}): choose a folder that exists")
    check_folder(path.absolute().parent)


def cannot(do: str, path: Path, error: OSError) -> IavaError:
    """The one line for a place that does not work."""
    return IavaError(f"cannot {do} {path} ({error.strerror or error}): choose a place where files can be written")
