"""Running the application: addresses, signals, and the end."""

import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from iava.errors import IavaError


class _Server(uvicorn.Server):
    """Does not pass signals on once the server has ended, so that the exit code is 0."""

    should_exit: bool

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = bool(self.should_exit) and sig == signal.SIGINT
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Binds an address; port 0 takes a free one.

    Raises:
        IavaError: if that is not possible.
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


def server(app: FastAPI) -> uvicorn.Server:
    """Makes the server; `run(sockets=[...])` serves until SIGTERM or Ctrl-C.

    Then it accepts no connection, finishes the requests that run, and returns.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", server_header=False)
    return _Server(config)
