"""Addresses are fetched from allowed hosts at public addresses only, redirects included.

The resolver and the connection are the test's own, so that a local server can stand at a public address.
"""

import http.server
import socket
import threading
import time

import pytest

from iava.serve.errors import ApiError
from iava.serve.images.fetch import Fetcher
from tests import tiny
from tests.local_server import serving
from tests.serve.serving import data_uri, running

PUBLIC = "93.184.216.34"
LATER = 5.0


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers according to the path."""

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(b"x")
                    self.server.sent += 1
                    time.sleep(0.05)
            except OSError:
                pass
            self.server.ended.set()
        else:
            self.send_response(200 if kind == "image" else 404)
            self.end_headers()
            self.wfile.write(b"i" * 100)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with serving(Answers) as made:
        made.asked, made.sent, made.ended = [], 0, threading.Event()
        yield made


class Net:
    """Host names with public addresses. All connections go to the local server."""

    def __init__(self, port, names):
        self.port = port
        self.names = names
        self.resolved = []
        self.connected = []

    def resolve(self, host, port, **_):
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror(f"no such host {host}")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in self.names[host]]

    def connect(self, address, timeout):
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout)


@pytest.fixture
def fetch(server):
    def fetching(url, *, allowed=("images.test",), names=None, limit=1000, seconds=LATER):
        names = {"images.test": [PUBLIC], "other.test": [PUBLIC], **(names or {})}
        fetching.net = Net(server.server_port, names)
        fetcher = Fetcher(allowed, resolve=fetching.net.resolve, connect=fetching.net.connect)
        return fetcher.fetch(url, "url", limit, time.monotonic() + seconds)

    return fetching


def refused(fetch, url, status=400, **options):
    with pytest.raises(ApiError) as error:
        fetch(url, **options)
    assert error.value.status_code == status
    assert error.value.param == "url"
    return error.value


def test_an_allowed_host_is_fetched_at_the_address_that_was_checked(fetch, server):
    assert fetch("http://images.test/image/a?b=c") == b"i" * 100
    assert server.asked == [("images.test", "/image/a?b=c")]
    assert fetch.net.resolved == ["images.test"]
    assert fetch.net.connected == [(PUBLIC, 80)]


def test_host_names_ignore_case(fetch):
    assert fetch("HTTP://IMAGES.test/image/") == b"i" * 100


@pytest.mark.parametrize(
    "url",
    [
        "http://other.test/image/",
        "http://images.test.evil.test/image/",
        "http://images.test@other.test/image/",
        "http://images.test:8080/image/",
        "http://93.184.216.34/image/",
        "http:///image/",
        "http://[::1]/image/",
        "http://images.test:99999/image/",
    ],
)
def test_other_hosts_get_no_request(fetch, server, url):
    refused(fetch, url)
    assert fetch.net.connected == []
    assert server.asked == []


def test_a_port_is_allowed_by_name(fetch):
    assert fetch("http://images.test:8080/image/", allowed=["images.test:8080"]) == b"i" * 100
    assert fetch.net.connected == [(PUBLIC, 8080)]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fec0::1",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_an_allowed_name_at_an_address_that_is_not_public_is_refused(fetch, address):
    for addresses in ([address], [PUBLIC, address]):
        error = refused(fetch, "http://images.test/image/", names={"images.test": addresses})
        assert error.code == "image_host_not_allowed"
        assert fetch.net.connected == []


def test_a_public_ipv6_address_is_fetched(fetch):
    assert fetch("http://images.test/image/", names={"images.test": ["2606:4700::1111"]}) == b"i" * 100
    assert fetch.net.connected == [("2606:4700::1111", 80)]


def test_a_redirect_is_checked_like_an_address(fetch, server):
    assert fetch("http://images.test/to/http://images.test/image/") == b"i" * 100
    assert fetch("http://images.test/to//image/") == b"i" * 100
    refused(fetch, "http://images.test/to/http://other.test/image/")
    inside = {"inside.test": ["127.0.0.1"]}
    refused(
        fetch, "http://images.test/to/http://inside.test/image/", allowed=["images.test", "inside.test"], names=inside
    )
    refused(fetch, "http://images.test/to/file:///etc/passwd")
    assert {host for host, _ in server.asked} == {"images.test"}


def test_a_host_name_is_resolved_once(fetch, server):
    """The connection goes to the address that was checked, so a name is resolved once for each request."""
    fetch("http://images.test/to/http://images.test/image/")
    assert fetch.net.resolved == ["images.test"] * 2
    assert fetch.net.connected == [(PUBLIC, 80)] * 2


def test_redirects_are_limited(fetch):
    assert "redirects" in str(refused(fetch, "http://images.test" + "/to" * 5 + "/").detail)


def test_a_long_answer_is_refused(fetch):
    assert refused(fetch, "http://images.test/image/", limit=99).code == "image_too_large"
    assert fetch("http://images.test/image/", limit=100) == b"i" * 100


def test_a_missing_image_is_refused(fetch):
    assert "404" in refused(fetch, "http://images.test/none/").detail
    assert "gaierror" in refused(fetch, "http://gone.test/", allowed=["gone.test"]).detail


def test_a_server_that_sends_a_byte_at_a_time_is_cut_off(fetch, server):
    refused(fetch, "http://images.test/slow/", status=504, seconds=0.5)
    assert server.ended.wait(60)
    assert server.sent < 1000


def test_slow_hosts_do_not_delay_images_that_are_sent_along(lvlm):
    """More requests wait for a slow host than there are threads that decode images."""
    released, waiting = threading.Event(), threading.Semaphore(0)

    def connect(*_args, **_options):
        waiting.release()
        released.wait(30)
        raise OSError

    def resolve(*_args, **_options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 80))]

    fetcher = Fetcher(["slow.test"], resolve=resolve, connect=connect)
    with running(lvlm, method="greedy", fetcher=fetcher) as served, served.http() as http:

        def post(url):
            parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What ?"}]
            asked = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
            return http.post("/v1/chat/completions", json=asked)

        statuses = []
        threads = [
            threading.Thread(target=lambda: statuses.append(post("http://slow.test/a.png").status_code))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.acquire(timeout=30)
        assert post(data_uri(tiny.image())).status_code == 200
        assert statuses == []
        released.set()
        for thread in threads:
            thread.join(30)
        assert statuses == [400] * 6
