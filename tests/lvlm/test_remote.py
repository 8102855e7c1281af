"""Images from addresses: only when asked for, with limits, and every redirect checked."""

import io
import time
from http.server import BaseHTTPRequestHandler

import pytest
from PIL import Image

from iava.errors import IavaError
from iava.lvlm.images import read_image
from iava.lvlm.remote import fetch
from tests.local_server import serving


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        Handler.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/again":
            self.send_response(302)
            self.send_header("Location", "/again")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        elif self.path.startswith("/red.png"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with serving(Handler) as served:
        yield f"http://127.0.0.1:{served.server_port}"


def test_an_address_is_fetched_only_when_asked_for(server):
    Handler.asked.clear()
    with pytest.raises(IavaError, match="may not be fetched: allow it with remote=True"):
        read_image(f"{server}/red.png?key=secret")
    assert Handler.asked == []
    assert read_image(f"{server}/red.png", remote=True).getpixel((0, 0)) == (255, 0, 0)


def test_a_function_decides_for_the_address_and_for_each_redirect(server):
    assert read_image(f"{server}/to/{server}/red.png", remote=lambda address: address.startswith(server)).size == (4, 2)
    with pytest.raises(IavaError, match="may not be fetched"):
        read_image(f"{server}/to/http://localhost:1/red.png", remote=lambda address: address.startswith(server))


def test_a_redirect_to_something_else_is_refused(server):
    for target in ("file:///etc/passwd", "ftp://localhost/a.png", "data:image/png;base64,AAAA"):
        with pytest.raises(IavaError, match=r"is no http\(s\) address"):
            read_image(f"{server}/to/{target}", remote=True)
    with pytest.raises(IavaError, match="behind more than 5 redirects"):
        read_image(f"{server}/again", remote=True)


def test_a_public_address_may_not_lead_to_a_private_one(server, monkeypatch):
    import socket

    resolve = socket.getaddrinfo

    def public(host, *args, **more):
        if host == "pictures.example":
            return resolve("127.0.0.1", *args, **more) if args[0] else [(2, 1, 6, "", ("8.8.8.8", 0))]
        return resolve(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", public)
    port = server.rsplit(":", 1)[1]
    assert len(fetch(f"http://pictures.example:{port}/red.png", True)) == len(png())
    with pytest.raises(IavaError, match="is at a private address, and a public one led there"):
        fetch(f"http://pictures.example:{port}/to/{server}/red.png", True)


def test_what_does_not_arrive(server):
    with pytest.raises(IavaError, match="did not arrive in time"):
        fetch(f"{server}/slow", True, timeout=0.3)
    with pytest.raises(IavaError, match="is larger than 50 bytes"):
        fetch(f"{server}/red.png", True, max_bytes=50)
    with pytest.raises(IavaError, match="cannot be fetched: HTTP 404") as caught:
        read_image(f"{server}/nothing?key=secret", remote=True)
    assert "secret" not in str(caught.value)
    with pytest.raises(IavaError, match="cannot be fetched"):
        fetch("http://127.0.0.1:1/a.png", True)
    for address in ("http://[", "http://", "http://a b/c"):
        with pytest.raises(IavaError, match=r"address|cannot be fetched"):
            fetch(address, True)
    with pytest.raises(IavaError, match="image at"):
        read_image(f"{server}/cut", remote=True)
