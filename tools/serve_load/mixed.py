"""A mixed load: many clients, several methods and images, clients that leave early, and rubbish."""

import json
import random
import threading
import time
from collections import Counter

import httpx

CLIENTS = 64
LEAVES = 0.10
"""Share of requests whose client closes the connection before the answer is complete."""
RUBBISH = 0.05
"""Share of requests that are no valid requests."""
BODIES = (
    b"",
    b"{",
    b"\x00" * 100,
    b'{"model": "tiny"}',
    json.dumps({"model": "none", "messages": [{"role": "user", "content": "x"}]}).encode(),
    json.dumps({"messages": 1, "temperature": "hot"}).encode(),
)
PATH = "/v1/chat/completions"
_JSON = {"Content-Type": "application/json"}


class Load:
    """Sends requests and compares the answers.

    Args:
        url: address of the server.
        cases: (body, text that is expected), see `mixed_cases`.
        clients: number of clients that send at once.
    """

    def __init__(self, url, cases, clients=CLIENTS):
        self.url, self.cases, self.clients = url, cases, clients
        self.counts = Counter()
        """Requests by what became of them: "answered", "streamed", "left" and "rubbish"."""
        self.wrong = []
        """Wrong answers, wrong status codes and errors."""
        self.seconds = 0.0

    def send(self, count, seed):
        """Sends so many requests, and waits until all are answered."""
        numbers, lock, start = iter(range(count)), threading.Lock(), time.perf_counter()

        def work(client):
            rng = random.Random(seed + client)
            try:
                with httpx.Client(base_url=self.url, timeout=300) as http:
                    while True:
                        with lock:
                            if next(numbers, None) is None:
                                return
                        kind = self._one(http, rng)
                        with lock:
                            self.counts[kind] += 1
            except Exception as error:
                self.wrong.append(repr(error))

        threads = [threading.Thread(target=work, args=(client,)) for client in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds += time.perf_counter() - start

    def _one(self, http, rng):
        kind = rng.random()
        if kind < RUBBISH:
            answer = http.post(PATH, content=rng.choice(BODIES), headers=_JSON)
            if answer.status_code not in (400, 404):
                self.wrong.append((answer.status_code, answer.text))
            return "rubbish"
        body, expected = rng.choice(self.cases)
        if kind < RUBBISH + LEAVES:
            self._leave({**body, "stream": True}, rng.randrange(1, 4))
            return "left"
        streams = rng.random() < 0.5
        answer = http.post(PATH, json={**body, "stream": streams})
        text = _streamed(answer.text) if streams else answer.json()["choices"][0]["message"]["content"]
        if text != expected:
            self.wrong.append((body["iava"], text, expected))
        return "streamed" if streams else "answered"

    def _leave(self, body, lines):
        """Closes the connection after some lines of the stream: a connection of its own, because it is lost."""
        with (
            httpx.Client(base_url=self.url, timeout=300) as http,
            http.stream("POST", PATH, json=body) as answer,
        ):
            for _ in zip(range(lines), answer.iter_lines(), strict=False):
                pass


def _streamed(text):
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
