"""Fetches images from other hosts, without giving a request access to the server's own network.

The host must be on the operator's list. Its name is resolved once, and all its addresses must be public. The connection
goes to the address that was checked. A redirect is checked in the same way.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

from iava.lvlm.remote import is_public_ip
from iava.serve.errors import ApiError

REDIRECTS = 3
"""Number of redirects that are followed."""


class Fetcher:
    """Fetches images from allowed hosts.

    Args:
        allowed: host names, or `host:port` for other ports than 80 and 443.
        resolve: like `socket.getaddrinfo`.
        connect: like `socket.create_connection`.
    """

    def __init__(
        self,
        allowed: Collection[str] = (),
        *,
        resolve: Callable[..., Any] = socket.getaddrinfo,
        connect: Callable[..., socket.socket] = socket.create_connection,
    ) -> None:
        self._allowed = {host.lower() for host in allowed}
        self._resolve = resolve
        self._connect = connect

    def fetch(self, url: str, field: str, limit: int, deadline: float) -> bytes:
        """Fetches an address.

        Args:
            url: http or https address.
            field: the field of the request that holds the address.
            limit: largest number of bytes of the image.
            deadline: `time.monotonic()` at which fetching ends.

        Raises:
            ApiError: 400 if the address is not allowed, not public, or does not answer with 200; 504 if it is too slow.
        """

        def refuse(reason: str, status: int = 400, code: str = "image_fetch_failed") -> ApiError:
            return ApiError(status, f"{field}: {reason}", param=field, code=code)

        for _ in range(REDIRECTS + 1):
            try:
                with _Exchange(*self._target(url, refuse), url, self._connect, deadline) as answer:
                    if answer.status not in (301, 302, 303, 307, 308):
                        if answer.status != 200:
                            raise refuse(f"the address answered with status {answer.status}")
                        found = _read_image(answer, limit, refuse)
                        _time_left(deadline)  # An image that was cut off at the deadline may look complete.
                        return found
                    url = urljoin(url, answer.headers.get("Location", ""))
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() >= deadline:
                    raise refuse("the address was too slow", 504, "timeout") from None
                raise refuse(f"the address could not be fetched ({type(error).__name__})") from None
        raise refuse(f"the address redirects more than {REDIRECTS} times")

    def _target(self, url: str, refuse: Callable[..., ApiError]) -> tuple[str, str, int, bool]:
        """Returns the public IP address of a URL, its host name, its port, and whether it is https."""
        parts = urlsplit(url)
        host, secure = (parts.hostname or "").lower(), parts.scheme.lower() == "https"
        standard = 443 if secure else 80
        port = standard if parts.port is None else parts.port
        name = host if port == standard else f"{host}:{port}"
        if parts.scheme.lower() not in ("http", "https") or name not in self._allowed:
            raise refuse(
                f"the server does not fetch from {name or 'this address'!r}: send the image as a data URI",
                code="image_host_not_allowed",
            )
        found = self._resolve(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(is_public_ip(address) for address in addresses):
            raise refuse(f"{host!r} is not a public address", code="image_host_not_allowed")
        return addresses[0], host, port, secure


class _Exchange:
    """Context manager for one GET request to an IP address that was checked; yields the response."""

    def __init__(
        self,
        address: str,
        host: str,
        port: int,
        secure: bool,
        url: str,
        connect: Callable[..., socket.socket],
        deadline: float,
    ) -> None:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(host, port)
        raw = connect((address, port), timeout=_time_left(deadline))
        # The connection is made here, because http.client would resolve the name again.
        self._socket = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
        self._connection.sock = self._socket
        # A socket timeout applies to one read. This timer also stops a server that sends a byte at a time.
        self._cut = threading.Timer(_time_left(deadline), self._shut)
        self._cut.daemon = True
        self._cut.start()
        parts = urlsplit(url)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __enter__(self) -> http.client.HTTPResponse:
        self._connection.request("GET", self._path, headers={"Accept": "image/*", "User-Agent": "iava"})
        return self._connection.getresponse()

    def __exit__(self, *_: object) -> None:
        self._cut.cancel()
        self._connection.close()

    def _shut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _read_image(answer: http.client.HTTPResponse, limit: int, refuse: Callable[..., ApiError]) -> bytes:
    found = answer.read(limit + 1)
    if len(found) > limit:
        raise refuse(f"the image has more than {limit:,} bytes", code="image_too_large")
    return found


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
