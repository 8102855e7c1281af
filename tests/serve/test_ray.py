"""Two replicas on Ray Serve: one is killed under load."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from tests import tiny
from tests.serve.serving import free_port, user
from tools.serve_load.process import Process

pytestmark = pytest.mark.slow

QUESTION = "Is there a dog ?"
CLIENTS = 8
LOST = "the replica that worked on the answer was lost: send the request again"


@pytest.fixture
def cluster(tiny_folder):
    server = Process("serve", tiny_folder, "--engine", "ray", "--replicas", 2, "--port", free_port())
    yield server
    server.process.terminate()
    assert server.process.wait(120) == 0


def replicas(root):
    """The process ids of the replicas that descend from a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    parents, found = {}, []
    for line in listed.splitlines():
        pid, parent, arguments = line.split(maxsplit=2)
        parents[int(pid)] = int(parent)
        if arguments.startswith("ray::ServeReplica:iava:replica"):
            found.append(int(pid))

    def descends(pid):
        while pid and pid != root:
            pid = parents.get(pid, 0)
        return pid == root

    return [pid for pid in found if descends(pid)]


def test_only_requests_on_the_killed_replica_are_lost(cluster):
    name = cluster.http.get("/v1/models").json()["data"][0]["id"]
    asked = {"model": name, "messages": [user(QUESTION, tiny.image())], "max_tokens": 20, "iava": {"method": "iava"}}
    expected = cluster.http.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"]
    outcomes, ended = Counter(), threading.Event()

    def ask(number):
        stream = number % 2 == 0
        while not ended.is_set():
            answer = cluster.http.post("/v1/chat/completions", json={**asked, "stream": stream})
            if answer.status_code == 503:
                assert answer.json()["error"]["message"] == LOST
                assert answer.headers["retry-after"] == "1"
                outcomes["lost"] += 1
            elif stream and "data: [DONE]" not in answer.text:
                assert LOST in answer.text
                outcomes["lost"] += 1
            else:
                assert answer.status_code == 200
                assert stream or answer.json()["choices"][0]["message"]["content"] == expected
                outcomes["answered"] += 1

    failures = []

    def guarded(number):
        try:
            ask(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until(lambda: outcomes["answered"] > 50)
    before = replicas(cluster.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(replicas(cluster.process.pid)) - {before[0]}) == 2)
    answered = outcomes["answered"]
    until(lambda: outcomes["answered"] > answered + 50)
    ended.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    # Each client has one request in flight, and about half of these ran on the replica.
    assert 1 <= outcomes["lost"] <= CLIENTS


def test_every_replica_shows_the_pages_of_the_others(cluster):
    name = cluster.http.get("/v1/models").json()["data"][0]["id"]
    asked = {"model": name, "messages": [user(QUESTION, tiny.image())], "max_tokens": 3, "iava": {"explain": True}}
    page = cluster.http.post("/v1/chat/completions", json=asked).json()["iava"]["page"]
    found = [cluster.http.get(page) for _ in range(20)]
    assert {answer.status_code for answer in found} == {200}
    assert QUESTION in found[0].text


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("waited for two minutes")
