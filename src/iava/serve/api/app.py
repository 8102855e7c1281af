"""The application: its routes and its middleware."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TextIO

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from iava.evaluation.environment import package_version
from iava.serve.api.access import Gate
from iava.serve.api.catalogue import card
from iava.serve.api.chat import Chat
from iava.serve.api.compare import compare
from iava.serve.api.schema import (
    ChatRequest,
    CompareRequest,
    Comparison,
    Completion,
    ErrorObject,
    MethodList,
    ModelCard,
    ModelList,
)
from iava.serve.errors import ApiError, http_error, internal_error, validation_error
from iava.serve.page.files import FILES, SCENES, asset, scene
from iava.serve.service import SERVED, Service

_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorObject, "description": description}
    for status, description in {
        400: "A field is wrong or not supported; `param` names it.",
        401: "The API key is missing or wrong.",
        404: "There is no such model.",
        413: "The body is too large.",
        429: "Too many requests wait.",
        500: "A bug in the server.",
        503: "The server is stopping, or its memory is full.",
        504: "The request took too long.",
    }.items()
}
_JSON_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorObject"}}}}
_SSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "A completion, or its chunks with `stream`."}
}
_PAGE_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_SITE_POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'"
_CLEANING = 60.0  # seconds between removals of old explorer pages


def build_app(
    service: Service,
    *,
    keys: Sequence[bytes] | None = None,
    origins: Sequence[str] = (),
    log: TextIO | None = None,
) -> FastAPI:
    """Builds the application; its lifespan starts and stops the service.

    Args:
        service: the model that is served.
        keys: digests of API keys, see `read_keys`. None: no key is needed.
        origins: origins whose pages may send requests (CORS).
        log: file for the access log. None: standard output.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        cleaning = asyncio.create_task(_clean(service))
        yield
        cleaning.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(title="iava", version=package_version("iava"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(Exception, internal_error)
    app.add_middleware(Gate, service=service, keys=keys, log=log)
    if origins:
        # Around the gate, so that a page can read the gate's errors.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    _add_api(app, service)
    _add_site(app, service)
    _describe(app, service)
    return app


def _describe(app: FastAPI, service: Service) -> None:
    """Corrects the OpenAPI description: a wrong field gets status 400, and one model is served."""
    description = app.openapi()
    for path in description["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    schemas = description["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["ChatRequest"]["properties"]["model"]["enum"] = [service.name]


async def _clean(service: Service) -> None:
    while True:
        await asyncio.sleep(_CLEANING)
        await service.in_thread(service.pages.clean)


def _add_api(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=Completion, responses={**_REFUSED, **_SSE})
    async def chat_completions(body: ChatRequest, request: Request) -> Any:
        """Answers a conversation."""
        return await Chat(service, body, request.scope["state"]["request"]).answer(request)

    @app.post("/v1/compare", responses=_REFUSED)
    async def compare_methods(body: CompareRequest, request: Request) -> Comparison:
        """Answers questions about one image with several methods, and writes an explorer page."""
        return await compare(service, body, request.scope["state"]["request"])

    @app.get("/v1/models", responses={401: _REFUSED[401]})
    async def models() -> ModelList:
        """Lists the model that is served."""
        return ModelList(data=[ModelCard(id=service.name, created=service.created)])

    @app.get("/v1/methods", responses={401: _REFUSED[401]})
    async def methods() -> MethodList:
        """Lists the decoding methods, with papers, settings and ranges."""
        cards = [card(name, service.settings_of(name)) for name in SERVED]
        return MethodList(default=service.default_method, data=cards)

    @app.get("/health", responses={503: _REFUSED[503]})
    async def health() -> dict[str, str]:
        """Tells whether the server answers requests."""
        if not service.worker.is_ready:
            raise ApiError(503, "the server does not decode: its worker has stopped", code="not_ready")
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse, responses={401: {**_REFUSED[401], **_JSON_ERROR}})
    async def metrics() -> Response:
        """Shows metrics in the text format of Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_site(app: FastAPI, service: Service) -> None:
    @app.get("/pages/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        kept = await service.in_thread(service.pages.get, name)
        if kept is None:
            raise ApiError(404, "there is no such page, or it was removed", code="page_not_found")
        headers = {"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "no-store"}
        return Response(kept, media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return Response(asset("index.html"), media_type="text/html", headers={"Content-Security-Policy": _SITE_POLICY})

    @app.get("/site/{name}", include_in_schema=False)
    async def site(name: str) -> Response:
        if name not in FILES:
            raise ApiError(404, "there is no such file")
        return Response(asset(name), media_type=FILES[name])

    @app.get("/site/scenes/{number}", include_in_schema=False)
    async def picture(number: int) -> Response:
        if not 0 <= number < SCENES:
            raise ApiError(404, "there is no such scene")
        return Response(await service.in_thread(scene, number), media_type="image/png")
