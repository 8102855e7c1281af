"""Explorer pages, kept for a limited time."""

import secrets
import threading
import time
from collections import OrderedDict
from typing import Protocol


class Pages(Protocol):
    """A store of pages; see `PageStore`."""

    def put(self, page: str) -> str: ...
    def get(self, name: str) -> bytes | None: ...
    def clean(self) -> None: ...
    def size(self) -> int: ...


class PageStore:
    """Keeps pages under names that cannot be guessed, and removes the oldest first.

    Args:
        seconds: time that a page is kept.
        limit: number of bytes of all pages together.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._pages: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def put(self, page: str) -> str:
        """Keeps a page; returns its name."""
        data, name = page.encode(), secrets.token_urlsafe(18)
        with self._lock:
            self._pages[name] = time.monotonic(), data
            self._bytes += len(data)
            self._clean()
        return name

    def get(self, name: str) -> bytes | None:
        """Returns a page, or None if there is no such page or it was removed."""
        with self._lock:
            self._clean()
            return self._pages[name][1] if name in self._pages else None

    def size(self) -> int:
        """Returns the number of bytes of all pages."""
        return self._bytes

    def clean(self) -> None:
        """Removes pages that are too old."""
        with self._lock:
            self._clean()

    def _clean(self) -> None:
        oldest = time.monotonic() - self._seconds
        while self._pages:
            made, data = next(iter(self._pages.values()))
            if made >= oldest and self._bytes <= self._limit:
                break
            self._pages.popitem(last=False)
            self._bytes -= len(data)
