"""What happens to every request, whatever its path: API keys, limits, the access log and clean-up."""

import asyncio
import hashlib
import hmac
import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iava.errors import IavaError
from iava.serve.batching.rows import BatchRow
from iava.serve.budget import Share
from iava.serve.errors import RETRY_AFTER, ApiError, error_response
from iava.serve.limits import Limits
from iava.serve.service import Service

_OPEN = ("/health", "/pages/", "/site/")
"""Paths that need no key. The name of an explorer page cannot be guessed."""
_COUNTED = ("/v1/chat/completions", "/v1/compare")
"""Paths whose requests are decoded."""


@dataclass
class RequestState:
    """A request while it is served.

    Args:
        arrived: `time.monotonic()` at its first byte.
        deadline: `time.monotonic()` at which its time is up.
        share: memory that it holds; released when the request ends.
        rows: rows that are decoded for it; freed when the request ends.
        log: fields of its line in the access log.
    """

    arrived: float
    deadline: float
    share: Share
    rows: list[BatchRow] = field(default_factory=list)
    log: dict[str, Any] = field(default_factory=dict)


def read_keys(path: Path) -> list[bytes]:
    """Reads API keys, one a line.

    Returns:
        Their SHA-256 digests.

    Raises:
        IavaError: if the file cannot be read or holds no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise IavaError(f"the API keys cannot be read from {str(path)!r}: {error}") from None
    if not lines:
        raise IavaError(f"{str(path)!r} holds no API key: write one a line")
    return [hashlib.sha256(line.encode()).digest() for line in lines]


class Gate:
    """Middleware around the application.

    Args:
        app: the application.
        service: the model that is served.
        keys: digests of API keys, see `read_keys`. None: no key is needed.
        log: file for the access log, one JSON object a line. None: standard output.
    """

    def __init__(self, app: ASGIApp, service: Service, keys: Sequence[bytes] | None, log: TextIO | None = None) -> None:
        self._app = app
        self._service = service
        self._keys = keys
        self._log = log or sys.stdout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived, limits = time.monotonic(), self._service.limits
        state = RequestState(arrived, arrived + limits.seconds, self._service.budget.share())
        scope["state"]["request"] = state
        request_id = uuid.uuid4().hex
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        counted = scope["path"] in _COUNTED and scope["method"] == "POST"
        self._service.in_flight += counted
        try:
            self._check(scope, counted)
            await self._app(scope, limited(receive, limits, state.deadline, state.share.hold), sending)
        except ApiError as error:
            await error_response(error)(scope, receive, sending)
        finally:
            self._service.in_flight -= counted
            state.share.release()
            for row in state.rows:
                row.leave()
            # The path of the route: a path that a client makes up must not become a label.
            path = getattr(scope.get("route"), "path", "other")
            self._service.metrics.request(path, state.log.get("method", ""), status)
            self._write(scope, request_id, status, state)

    def _check(self, scope: Scope, counted: bool) -> None:
        headers = Headers(scope=scope)
        path = scope["path"]
        if self._keys is not None and path != "/" and not path.startswith(_OPEN):
            kind, _, key = headers.get("authorization", "").partition(" ")
            given = hashlib.sha256(key.strip().encode()).digest()
            # All keys are compared, so the time does not tell which one matches.
            matches = [hmac.compare_digest(given, one) for one in self._keys]
            if kind.lower() != "bearer" or not any(matches):
                raise ApiError(
                    401,
                    "the API key is missing or wrong: send Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if counted and self._service.in_flight > self._service.limits.queue:
            raise ApiError(
                429,
                f"{self._service.limits.queue} requests wait already: try again later",
                code="queue_full",
                headers=RETRY_AFTER,
            )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._service.limits.body:
            raise _body_too_large(self._service.limits)

    def _write(self, scope: Scope, request_id: str, status: int, state: RequestState) -> None:
        client = scope.get("client")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": request_id,
            "client": client[0] if client else None,
            "verb": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(time.monotonic() - state.arrived, 4),
            **state.log,
        }
        print(json.dumps(line, ensure_ascii=False), file=self._log, flush=True)


def limited(receive: Receive, limits: Limits, deadline: float, hold: Callable[[int], None]) -> Receive:
    """Limits the size and the time of a request body.

    Args:
        receive: of an ASGI application.
        limits: of the server.
        deadline: `time.monotonic()` at which the body must be complete.
        hold: called with the number of bytes of each part.

    Returns:
        A replacement for `receive`. It raises ApiError 413 or 504, and the errors of `hold`.
    """
    received, complete = 0, False

    async def receive_within() -> Message:
        nonlocal received, complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), deadline - time.monotonic())
        except TimeoutError:
            raise ApiError(504, "the request body took too long to arrive", code="timeout") from None
        part = len(message.get("body", b""))
        received += part
        complete = not message.get("more_body", False)
        if received > limits.body:
            raise _body_too_large(limits)
        hold(part)
        return message

    return receive_within


def _body_too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the request body has more than {limits.body:,} bytes", code="request_too_large")
