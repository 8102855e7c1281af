"""A web server in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD alike, by the method `answer` of a subclass, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def send(self, code: int, body: bytes = b"", **headers: Any) -> None:
        """Sends a whole answer. Headers are written with underscores; they replace the length of the body."""
        self.send_response(code)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer()  # type: ignore[attr-defined]

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[ThreadingHTTPServer]:
    """Serves on a free port of the loopback address; stops at the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # `shutdown` waits for the next poll.
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
