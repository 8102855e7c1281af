"""The application on Ray Serve: replicas on many GPUs or machines, and a front that forwards requests to them.

Ray answers a request whose replica is lost with a bare 500. The front says instead what happened, as an error object.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from iava.errors import IavaError
from iava.serve.api.access import limited
from iava.serve.errors import RETRY_AFTER, ApiError, error_event, error_response
from iava.serve.launch import ServerConfig, application
from iava.serve.page.store import PageStore

try:
    import ray
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.config import AutoscalingConfig
    from ray.serve.exceptions import RayServeException
except ImportError:
    raise IavaError("--engine ray needs Ray Serve: install it with pip install 'iava[serve-ray]'") from None

APP = "iava"
_REPLICA = "replica"
_LOST = ApiError(
    503,
    "the replica that worked on the answer was lost: send the request again",
    code="replica_lost",
    headers=RETRY_AFTER,
)
_SPARE = 64  # requests beside those that are decoded: health, models, pages
_FORWARDED = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)
"""What an ASGI scope says of a request; the rest belongs to one process."""


class SharedPages:
    """Explorer pages of all replicas: any of them can show a page that another has written."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._store: Any = (
            ray.remote(PageStore)
            .options(name="iava-pages", get_if_exists=True, num_cpus=0, max_restarts=-1)
            .remote(seconds, limit)
        )

    def put(self, page: str) -> str:
        """See `PageStore.put`."""
        return ray.get(self._store.put.remote(page))

    def get(self, name: str) -> bytes | None:
        """See `PageStore.get`."""
        return ray.get(self._store.get.remote(name))

    def clean(self) -> None:
        """See `PageStore.clean`."""
        ray.get(self._store.clean.remote())

    def size(self) -> int:
        """See `PageStore.size`."""
        return ray.get(self._store.size.remote())


class Replica:
    """The application of one process, with a model of its own."""

    # Ray awaits it: the lifespan must begin on the event loop that answers.
    async def __init__(self, config: ServerConfig) -> None:  # type: ignore[misc]
        pages = SharedPages(config.limits.page_seconds, config.limits.page_bytes)
        self._app = await asyncio.to_thread(application, config, pages)
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """Answers a request; ends it when nobody iterates any longer."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        received = asyncio.Event()

        async def receive() -> Message:
            if received.is_set():
                # The client's leaving cancels this request.
                await asyncio.Event().wait()
            received.set()
            return {"type": "http.request", "body": body, "more_body": False}

        async def run() -> None:
            try:
                await self._app({**scope, "state": {}}, receive, messages.put)
            finally:
                messages.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
        finally:
            running.cancel()

    def check_health(self) -> None:
        """Has Ray start the replica anew once its worker has ended."""
        if not self._app.state.service.worker.is_ready:
            raise RuntimeError("the worker does not run")


def _front(config: ServerConfig) -> Any:
    """Makes the ASGI application that forwards requests to replicas."""

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        answer: Any = None
        started = False
        try:
            body = await _body(limited(receive, config.limits, time.monotonic() + config.limits.seconds))
            replicas = serve.get_deployment_handle(_REPLICA, APP).options(stream=True)
            answer = replicas.answer.remote({key: scope[key] for key in _FORWARDED if key in scope}, body)
            async for message in answer:
                started = True
                await send(message)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
        except (RayActorError, RayServeException):
            if started:
                # A completion in one piece is one message, so this is a stream.
                await send({"type": "http.response.body", "body": error_event(_LOST).encode(), "more_body": False})
            else:
                await error_response(_LOST)(scope, receive, send)
        finally:
            if answer is not None:
                answer.cancel()

    return forward


async def _body(receive: Receive) -> bytes:
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)


async def _live(receive: Receive, send: Send) -> None:
    """Answers the events of a server's start and end."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def start(config: ServerConfig, *, host: str, port: int, replicas: tuple[int, int]) -> None:
    """Starts replicas, and returns when they answer.

    Joins the cluster that RAY_ADDRESS or `ray start` names, or starts one on this machine. Where the cluster has GPUs,
    each replica takes one.

    Args:
        config: what is served; the model must be readable on every machine.
        host: to listen on, on every machine of the cluster.
        port: to listen on.
        replicas: at least and at most so many; between them, as many as the requests need.

    Raises:
        IavaError: if the replicas cannot be started.
    """
    limits = config.limits

    def built() -> Any:
        return _front(config)

    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    low, high = replicas
    models: Any = serve.deployment(
        Replica,
        name=_REPLICA,
        max_ongoing_requests=limits.queue + _SPARE,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=low, initial_replicas=low, max_replicas=high, target_ongoing_requests=limits.batch
        ),
        graceful_shutdown_timeout_s=limits.seconds,
    )
    front: Any = serve.deployment(
        serve.ingress(built)(),
        name="front",
        max_ongoing_requests=high * (limits.queue + _SPARE),
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=limits.seconds,
    )
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(front.bind(models.bind(config)), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise IavaError(f"the replicas did not start: {error}") from None


def run_until_stopped() -> None:
    """Waits for SIGTERM or Ctrl-C; then requests that run are finished, and the replicas end."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
