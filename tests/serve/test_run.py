"""The commands `iava serve` and `iava app` as processes: address, exit code, signals and errors."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from iava.lvlm.loading import load
from tests import tiny
from tests.commands import refused
from tests.serve.serving import user
from tools.serve_load.process import Process

pytestmark = pytest.mark.slow

QUESTION = "Is there a dog ?"


def body(**more):
    return {"model": "pocket", "messages": [user(QUESTION, tiny.image())], "max_tokens": 8, **more}


def is_refused(url):
    time.sleep(0.005)
    try:
        httpx.get(f"{url}/health")
    except httpx.TransportError:
        return True
    return False


@pytest.fixture
def started(request):
    made = []

    def start(*arguments):
        made.append(Process(*arguments))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_requests_that_run_and_refuses_new_ones(started, tiny_folder, number):
    # A request waits for others for eight seconds, so the signal arrives while it waits.
    server = started("serve", tiny_folder, "--port", 0, "--batch-window", 8000)
    answers = []

    def ask():
        answers.append(server.http.post("/v1/chat/completions", json=body(model=Path(tiny_folder).name)))

    asking = threading.Thread(target=ask)
    asking.start()
    while "iava_queue_rows 1.0" not in server.http.get("/metrics").text:
        time.sleep(0.01)
    os.kill(server.process.pid, number)
    assert any(is_refused(server.url) for _ in range(1000))
    asking.join(60)
    assert answers[0].status_code == 200
    code, log, err = server.end()
    assert code == 0
    assert err == "\n"
    assert [line["status"] for line in log if line["path"] == "/v1/chat/completions"] == [200]


def test_a_client_that_does_not_read_does_not_stop_the_end(started):
    server = started("serve", "pocket", "--port", 0, "--timeout", 2)
    address = server.http.base_url
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect((address.host, address.port))
        # More than the buffers of both ends take.
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def test_the_address_is_printed_when_the_port_is_open():
    command = [sys.executable, "-c", "from iava.cli.app import main; main()", "app", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            # Connects at once: a client that reads the address may be this fast.
            address = urlsplit(server.stderr.readline().rsplit(maxsplit=1)[1])
            socket.create_connection((address.hostname, address.port)).close()
            assert httpx.get(f"{address.geturl()}/health", timeout=60).status_code == 200
        finally:
            server.terminate()


def test_an_idle_server_ends_at_once(started):
    server = started("app", "--port", 0)
    assert server.http.get("/").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    code, log, err = server.end()
    assert (code, err) == (0, "\n")
    assert [line["path"] for line in log] == ["/"]


def test_options_reach_the_server(started, tmp_path):
    (tmp_path / "keys").write_text("secret\n")
    options = ["--method", "vcd", "--set", "step=200", "--alpha", 0.5, "--max-new-tokens", 3, "--max-images", 1]
    options += ["--api-key-file", tmp_path / "keys", "--cors", "https://a.test", "--max-body", 0.1]
    server = started("serve", "pocket", "--port", 0, *options)
    assert server.http.get("/v1/models").status_code == 401
    server.http.headers["Authorization"] = "Bearer secret"
    methods = server.http.get("/v1/methods", headers={"Origin": "https://a.test"})
    assert methods.headers["access-control-allow-origin"] == "https://a.test"
    assert methods.json()["default"] == "vcd"
    found = server.http.post("/v1/chat/completions", json=body(max_tokens=None)).json()
    assert found["iava"] == {
        "method": "vcd",
        "settings": {**load("pocket").method("vcd").settings(), "alpha": 0.5, "step": 200},
        "selected": None,
        "page": None,
    }
    assert found["usage"]["completion_tokens"] <= 3
    assert server.http.post("/v1/chat/completions", json=body(user="x" * 100_000)).status_code == 413
    server.process.send_signal(signal.SIGTERM)
    assert server.end()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
@pytest.mark.parametrize("command", ["serve", "app"])
def test_a_missing_package_is_named(package, command):
    code = f"import sys; sys.modules[{package!r}] = None; from iava.cli.app import main; main([{command!r}])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr == "iava: error: the server needs more packages: install them with pip install 'iava[serve]'\n"


def test_a_wrong_option_is_refused_in_one_line(tmp_path):
    assert "unknown method" in refused("serve", "pocket", "--method", "beam")
    assert "no such setting" in refused("serve", "pocket", "--method", "greedy", "--alpha", 1)
    assert "alpha is -1" in refused("serve", "pocket", "--alpha", -1)
    assert "cannot be read" in refused("serve", "pocket", "--api-key-file", tmp_path / "none")
    assert "batch is 0" in refused("serve", "pocket", "--max-batch", 0)
    assert "port is 70000" in refused("serve", "pocket", "--port", 70000)
    assert "unknown engine" in refused("serve", "pocket", "--engine", "cloud")
    assert "--replicas" in refused("serve", "pocket", "--replicas", 2)
    assert "replicas is '2-1'" in refused("serve", "pocket", "--engine", "ray", "--replicas", "2-1")
    assert "unknown model" in refused("serve", tmp_path / "none", "--port", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen" in refused("serve", "pocket", "--port", taken.getsockname()[1])
