"""Errors of the API: OpenAI's error object, with a status code for each kind."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

RETRY_AFTER = {"Retry-After": "1"}


class ApiError(HTTPException):
    """A response with an error: its body is `{"error": {"message", "type", "param", "code"}}`.

    Args:
        status: HTTP status code.
        message: what was wrong, the value, and what would be right.
        param: the field of the request that is wrong.
        code: short name of the error for programs.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code


def error_object(error: HTTPException) -> dict[str, Any]:
    """Renders an error as OpenAI's error object."""
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    kind = {401: "authentication_error", 429: "rate_limit_error", 504: "timeout_error"}.get(error.status_code, kind)
    param = error.param if isinstance(error, ApiError) else None
    code = error.code if isinstance(error, ApiError) else None
    return {"error": {"message": str(error.detail), "type": kind, "param": param, "code": code}}


def error_response(error: HTTPException) -> JSONResponse:
    """Renders an error as a response."""
    return JSONResponse(error_object(error), error.status_code, error.headers)


def error_event(error: HTTPException) -> str:
    """Renders an error as the last event of a stream."""
    return f"data: {json.dumps(error_object(error), ensure_ascii=False)}\n\n"


async def http_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler of the application for `HTTPException`."""
    assert isinstance(error, HTTPException)
    return error_response(error)


async def validation_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler of the application for a request that does not match the schema: 400, naming the field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = _field(first["loc"])
    if first["type"] == "json_invalid":
        return error_response(
            ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
        )
    if first["type"] == "extra_forbidden":
        return error_response(
            ApiError(400, f"{field} is not supported: leave it out", param=field, code="unsupported_parameter")
        )
    message = f"{field}: {first['msg']}" if field else f"the body: {first['msg']}"
    return error_response(ApiError(400, message, param=field or None, code="invalid_value"))


async def internal_error(_request: Request, _error: Exception) -> JSONResponse:
    """Exception handler of the application for bugs: 500 without details; the traceback goes to the log."""
    return error_response(ApiError(500, "internal error: the server's log has the details", code="internal_error"))


def _field(location: Sequence[str | int]) -> str:
    """The path of a field, such as `messages.0.content.1.text`."""
    # The first part is "body". The part behind a list index is the type of a message part, not a field.
    parts = [
        str(part)
        for before, part in pairwise(location)
        if not (isinstance(before, int) and part in ("text", "image_url"))
    ]
    return ".".join(parts)
