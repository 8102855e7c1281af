"""Explorer pages that are kept for a while."""

import secrets
import threading
import time
from collections import OrderedDict
from typing import Protocol


class Pages(Protocol):
    """What keeps pages; see `PageStore`."""

    def put(self, page: str) -> str: ...
    def get(self, name: str) -> bytes | None: ...
    def clean(self) -> None: ...
    def size(self) -> int: ...


class PageStore:
    """Keeps pages under names that cannot be guessed; the oldest go first.

    Args:
        seconds: how long a page is kept.
        limit: bytes that all pages may take.
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
        """Returns a page, or None if it is not kept (any longer)."""
        with self._lock:
            self._clean()
            return self._pages[name][1] if name in self._pages else None

    def size(self) -> int:
        """Returns how many bytes all pages take."""
        return self._bytes

    def clean(self) -> None:
        """Drops pages whose time is up."""
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
