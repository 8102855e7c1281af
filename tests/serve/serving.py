"""A running server for tests, on a free port of the loopback address, and what its clients send."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from openai import OpenAI

from iava.serve.api.app import build_app
from iava.serve.server import listen, server
from iava.serve.service import Service
from tools.serve_load.cases import data_uri


@dataclass
class Running:
    """A server that runs.

    Args:
        url: its address, without a path.
        service: what it serves.
        log: its access log so far.
    """

    url: str
    service: Service
    log: io.StringIO

    def client(self, key="none", **options):
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    def http(self, **options):
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def until_idle(self):
        """Waits until no request is in flight."""
        for _ in range(500):
            if self.service.in_flight == 0 and self.service.worker.queued == 0:
                return
            time.sleep(0.01)
        raise AssertionError("requests are still in flight")


@contextmanager
def running(lvlm, name="tiny", *, keys=None, origins=(), **options) -> Iterator[Running]:
    """Serves a model until the end of the `with`; `options` are those of `Service`."""
    service, log = Service(lvlm, name, **options), io.StringIO()
    listening = listen("127.0.0.1", 0)
    serving = server(build_app(service, keys=keys, origins=origins, log=log), service.limits.seconds)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        while not serving.started:
            time.sleep(0.01)
        yield Running(url, service, log)
    finally:
        serving.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def free_port():
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def png(image):
    """The bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def user(text, *images):
    """A user's message: images, then text."""
    parts = [{"type": "image_url", "image_url": {"url": data_uri(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
