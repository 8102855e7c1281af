"""A lock on the folder of a run: one process at a time writes there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iava.errors import IavaError
from iava.files import cannot

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock. The operating system releases it when the process ends, however it ends.

    Where the system has no `fcntl` (Windows), nothing is locked.

    Args:
        folder: is created if it does not exist.

    Raises:
        IavaError: if another process holds the lock, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
                os.close(file)
                raise IavaError(
                    f"{folder} is in use by {holder}: wait until it ends, or choose another folder (--out)"
                ) from None
            if _is(path, file):
                break
            # The last holder deleted the file between our opening and locking it.
            os.close(file)
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        raise cannot("write", folder, error) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
