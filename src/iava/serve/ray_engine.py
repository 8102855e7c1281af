"""The application as a Ray Serve deployment: replicas on many GPUs or machines, started anew when one is lost."""

import logging
import signal
import threading
from typing import Any

from fastapi import FastAPI

from iava.errors import IavaError
from iava.serve.launch import ServerConfig, application
from iava.serve.pages import PageStore

try:
    import ray
    from ray import serve
    from ray.serve.config import AutoscalingConfig
except ImportError:
    raise IavaError("--engine ray needs Ray Serve: install it with pip install 'iava[serve,ray]'") from None

APP = "iava"
_SPARE = 64  # requests beside those that are decoded: health, models, pages


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
        self._store.clean.remote()

    def size(self) -> int:
        """See `PageStore.size`."""
        return ray.get(self._store.size.remote())


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

    def built() -> FastAPI:
        return application(config, SharedPages(limits.page_seconds, limits.page_bytes))

    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    low, high = replicas
    deployment: Any = serve.deployment(
        serve.ingress(built)(),
        name=APP,
        max_ongoing_requests=limits.queue + _SPARE,
        graceful_shutdown_timeout_s=limits.seconds,
        ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=low, initial_replicas=low, max_replicas=high, target_ongoing_requests=limits.batch
        ),
    )
    serve.start(http_options={"host": host, "port": port})
    try:
        serve.run(deployment.bind(), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise IavaError(f"the replicas did not start: {error}") from None


def run_until_stopped() -> None:
    """Waits for SIGTERM or Ctrl-C; then requests that run are finished, and the replicas end."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
