"""Runs the application on Ray Serve: replicas on many GPUs or machines, and a front that forwards requests to them.

Ray answers a request whose replica is lost with status 500 and no explanation. The front returns an error object.
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
from iava.serve.budget import Budget
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
_SPARE = 64  # requests that are not decoded: health, models, pages
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
"""Keys of an ASGI scope that describe the request. The others belong to one process."""


class SharedPages:
    """Store of the explorer pages of all replicas, so each can show the pages of the others."""

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
    """The application in one process, with its own copy of the model."""

    # Ray awaits this. The lifespan must begin on the event loop that answers requests.
    async def __init__(self, config: ServerConfig) -> None:  # type: ignore[misc]
        pages = SharedPages(config.limits.page_seconds, config.limits.page_bytes)
        self._app = await asyncio.to_thread(application, config, pages)
        self._lifespan = self._app.router.lifespan_context(self._app)
        await self._lifespan.__aenter__()

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        """Answers a request. The request ends when the iteration is closed."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        received = asyncio.Event()

        async def receive() -> Message:
            if received.is_set():
                # The front cancels the request when the client leaves.
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
        """Fails when the worker has ended, so that Ray starts the replica again."""
        if not self._app.state.service.worker.is_ready:
            raise RuntimeError("the worker has stopped")


def _front(config: ServerConfig) -> Any:
    """Makes the ASGI application that forwards requests to replicas."""
    budget = Budget(config.limits.held_bytes)

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        answer: Any = None
        head: Message | None = None
        started = complete = False
        share = budget.share()
        try:
            deadline = time.monotonic() + config.limits.seconds
            body = await _body(limited(receive, config.limits, deadline, share.hold))
            replicas = serve.get_deployment_handle(_REPLICA, APP).options(stream=True)
            answer = replicas.answer.remote({key: scope[key] for key in _FORWARDED if key in scope}, body)
            async for message in answer:
                if message["type"] == "http.response.start":
                    # Held back, because the replica may be lost before the body of a complete answer.
                    head = message
                    continue
                if not started:
                    assert head is not None
                    started = True
                    await send(head)
                await send(message)
                complete = not message.get("more_body", False)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
        except (RayActorError, RayServeException):
            # A replica that is lost after its last message leaves nothing to say. Another message would make the server
            # close the connection.
            if not started:
                await error_response(_LOST)(scope, receive, send)
            elif not complete:
                # A part of the body was sent and the end was not, so this is a stream.
                await send({"type": "http.response.body", "body": error_event(_LOST).encode(), "more_body": False})
        finally:
            share.release()
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
    """Answers the start and the end of the server's lifespan."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def start(config: ServerConfig, *, host: str, port: int, replicas: tuple[int, int]) -> None:
    """Starts replicas, and returns when they answer.

    Joins the cluster that RAY_ADDRESS or `ray start` names, or starts a cluster on this machine. Each replica takes one
    GPU if the cluster has GPUs.

    Args:
        config: configuration of the server. Every machine must be able to read the model.
        host: address to listen on, on every machine of the cluster.
        port: port to listen on.
        replicas: smallest and largest number of replicas. The load decides between them.

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
    """Waits for SIGTERM or Ctrl-C. Then finishes the requests that run, and ends the replicas."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
