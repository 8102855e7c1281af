"""Runs the application: address, signals and shutdown."""

import math
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from iava.errors import IavaError


class _Server(uvicorn.Server):
    """Does not raise the signal again after the shutdown, so the exit code is 0."""

    should_exit: bool

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = bool(self.should_exit) and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Binds an address; port 0 takes a free one.

    Raises:
        IavaError: if the address is in use or does not exist.
    """
    if not 0 <= port <= 65535:
        raise IavaError(f"port is {port}: it must be from 0 to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise IavaError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listening


def server(app: FastAPI, seconds: float) -> uvicorn.Server:
    """Makes the server; `run(sockets=[...])` serves until SIGTERM or Ctrl-C.

    It then refuses connections, finishes the requests that run, and returns.

    Args:
        app: the application.
        seconds: time limit of a request. A client that does not read its answer delays the end no longer than this.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(seconds),
    )
    return _Server(config)
