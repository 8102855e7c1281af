"""A server under load: 64 clients with mixed methods and images, of whom some leave early and some send rubbish."""

import itertools
import json
import random
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from iava.lvlm.loading import load
from tests import tiny
from tests.serve.process import Process
from tests.serve.serving import user

pytestmark = pytest.mark.slow

CLIENTS = 64
REQUESTS = 2000
METHODS = {"greedy": {}, "iava": {"top_i": 0.5}, "vcd": {"alpha": 0.5}, "m3id": {"threshold": 1.0}}
QUESTIONS = ("Is there a dog ?", "Where ?", "Describe this image in one", "How many cat ?")
IMAGES = [tiny.image(seed) for seed in range(4)]
RUBBISH = (
    b"",
    b"{",
    b"\x00" * 100,
    b'{"model": "tiny"}',
    json.dumps({"model": "none", "messages": [{"role": "user", "content": "x"}]}).encode(),
    json.dumps({"messages": 1, "temperature": "hot"}).encode(),
)


@pytest.fixture(scope="module")
def cases(tiny_folder):
    """(request, answer of the model alone) for each method, question and image."""
    lvlm, found = load(tiny_folder), []
    for (method, settings), question, image in itertools.product(METHODS.items(), QUESTIONS, IMAGES):
        longest = 3 + len(question) % 9
        answer = lvlm.ask(image, question, method=method, max_new_tokens=longest, **settings)
        body = {
            "model": Path(tiny_folder).name,
            "messages": [user(question, image)],
            "max_tokens": longest,
            "iava": {"method": method, **settings},
        }
        found.append((body, answer.text))
    assert len({text for _, text in found}) > len(found) / 3
    return found


class Clients:
    """Clients that share out a number of requests."""

    def __init__(self, url, cases):
        self.url, self.cases = url, cases
        self.outcomes, self.wrong = Counter(), []

    def send(self, count, seed):
        """Sends so many requests, and waits until all are answered."""
        numbers = iter(range(count))
        lock = threading.Lock()

        def work(client):
            rng = random.Random(seed + client)
            with httpx.Client(base_url=self.url, timeout=300) as http:
                while True:
                    with lock:
                        if next(numbers, None) is None:
                            return
                    outcome = self._one(http, rng)
                    with lock:
                        self.outcomes[outcome] += 1

        threads = [threading.Thread(target=self._guarded, args=(work, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)

    def _guarded(self, work, number):
        try:
            work(number)
        except Exception as error:
            self.wrong.append(error)

    def _one(self, http, rng):
        kind = rng.random()
        if kind < 0.05:
            headers = {"Content-Type": "application/json"}
            answer = http.post("/v1/chat/completions", content=rng.choice(RUBBISH), headers=headers)
            if answer.status_code not in (400, 404):
                self.wrong.append((answer.status_code, answer.text))
            return "rubbish"
        body, expected = rng.choice(self.cases)
        if kind < 0.15:
            self._leave(body, rng)
            return "left"
        if rng.random() < 0.5:
            text = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        else:
            lines = http.post("/v1/chat/completions", json={**body, "stream": True}).text.splitlines()
            chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        if text != expected:
            self.wrong.append((body["iava"], text, expected))
        return "answered"

    def _leave(self, body, rng):
        """Closes the connection before the answer is complete: a connection of its own, because it is lost."""
        with (
            httpx.Client(base_url=self.url, timeout=300) as http,
            http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer,
        ):
            for _ in zip(range(rng.randrange(1, 4)), answer.iter_lines(), strict=False):
                pass


def resident(pid):
    """Bytes of memory that a process holds, its threads, and its open files."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), files


def test_no_answer_is_wrong_and_nothing_leaks(tiny_folder, cases):
    server = Process("serve", tiny_folder, "--port", 0, "--method", "greedy", "--max-batch", 16, "--max-queue", 80)
    clients = Clients(server.url, cases)
    pid = server.process.pid
    try:
        clients.send(REQUESTS // 4, seed=0)
        before = resident(pid)
        clients.send(REQUESTS - REQUESTS // 4, seed=1000)
        after = resident(pid)
        metrics = httpx.get(f"{server.url}/metrics").text
    finally:
        server.process.terminate()
        code, log, _ = server.end()
    assert clients.wrong == []
    assert sum(clients.outcomes.values()) == REQUESTS
    assert clients.outcomes["rubbish"] > REQUESTS * 0.03
    assert clients.outcomes["left"] > REQUESTS * 0.07
    assert code == 0
    assert "iava_requests_in_flight 0.0" in metrics
    assert "iava_queue_rows 0.0" in metrics
    assert {line["status"] for line in log} <= {200, 400, 404}
    # A leak of a picture, a cache or a task a request would be hundreds of megabytes.
    assert after[0] - before[0] < 50e6
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 5
