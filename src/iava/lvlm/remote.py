"""Fetching an image from an http(s) address, with limits on time, size and redirects."""

import ipaddress
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin, urlsplit

from iava.errors import IavaError, quoted

Remote = bool | Callable[[str], bool]
"""Whether addresses may be fetched: none, all, or those for which a function says so."""

TIMEOUT = 20.0
"""Seconds for the whole fetch, redirects included."""
MAX_BYTES = 64 * 2**20
"""Largest size of a fetched file."""
MAX_REDIRECTS = 5


def fetch(address: str, remote: Remote, *, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """The contents of a file at an address.

    Every redirect is checked like the address itself. A public address may not lead to a private one.

    Args:
        address: begins with "http://" or "https://".
        remote: which addresses may be fetched.
        timeout: in seconds, for everything.
        max_bytes: the largest size.

    Raises:
        IavaError: if the address may not be fetched, does not answer in time or with a file, or the file is too large.
    """
    deadline = time.monotonic() + timeout
    public = None
    for _ in range(MAX_REDIRECTS + 1):
        _check_address(address, remote)
        was_public, public = public, _is_public(address)
        if was_public and not public:
            raise IavaError(f"the image at {short(address)} is at a private address, and a public one led there")
        try:
            left = max(deadline - time.monotonic(), 0.1)
            with _OPENER.open(urllib.request.Request(address, headers={"User-Agent": "iava"}), timeout=left) as reply:
                return _read_reply(reply, address, deadline, max_bytes)
        except urllib.error.HTTPError as error:
            target = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not target:
                raise IavaError(f"the image at {short(address)} cannot be fetched: HTTP {error.code}") from None
            address = urljoin(address, target)
        except TimeoutError:
            raise _late(address) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _late(address) from None
            raise IavaError(f"the image at {short(address)} cannot be fetched: {error.reason}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise IavaError(
                f"the image at {short(address)} cannot be fetched: {error or type(error).__name__}"
            ) from None
    raise IavaError(f"the image at {short(address)} is behind more than {MAX_REDIRECTS} redirects")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `fetch`, which checks them."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _check_address(address: str, remote: Remote) -> None:
    try:
        parts = urlsplit(address)
        usual = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usual = False
    if not usual:
        raise IavaError(f"the image address {short(address)} is no http(s) address")
    if not (remote(address) if callable(remote) else remote):
        raise IavaError(f"the image at {short(address)} may not be fetched: allow it with remote=True, or give a file")


def _is_public(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        # The fetch says so.
        return False
    return all(is_public_ip(str(one[4][0])) for one in found)


_UNICAST = ipaddress.ip_network("2000::/3")
"""The IPv6 addresses of the Internet. Others stand for IPv4 addresses, or for a site's own."""


def is_public_ip(address: str) -> bool:
    """Whether an IP address, such as "127.0.0.1" or "fe80::1%eth0", is one of the public Internet."""
    found: Any = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.version == 6 and (found not in _UNICAST or found.sixtofour):
        return False
    return found.is_global and not found.is_multicast


def _read_reply(reply: Any, address: str, deadline: float, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := reply.read1(65536):
        data += chunk
        if len(data) > max_bytes:
            raise IavaError(f"the image at {short(address)} is larger than {max_bytes:,} bytes")
        if time.monotonic() > deadline:
            raise _late(address)
    return bytes(data)


def _late(address: str) -> IavaError:
    return IavaError(f"the image at {short(address)} did not arrive in time")


def short(address: str) -> str:
    """An address as it stands in a message: without the query, which may hold a key."""
    return quoted(address.partition("?")[0], 100)
