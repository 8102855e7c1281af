"""Requests a second with several numbers of clients, over a loop of single `ask` calls."""

import json
import threading
import time
from statistics import median

import httpx

from tools.serve_load.cases import request

CLIENTS = (1, 8, 32)
QUESTIONS = ("Is there a dog in the image?", "Is there a cup in the image?", "Describe this image.")


def measure(lvlm, url, name, images, *, method, requests, max_new_tokens, rounds):
    """Measures the loop in this process and the server, in turn.

    Args:
        lvlm: the model that is served.
        url: address of the server.
        name: name of the model on the server.
        images: pictures. Each comes again with other questions, as in use.
        method: decoding method of all requests.
        requests: number of requests of a measurement.
        max_new_tokens: token limit of an answer.
        rounds: number of measurements of each kind.

    Returns:
        One row for the loop and one for each number of clients: requests a second (median, lowest, highest), the ratio
        of medians, and how many answers differ from the loop's.
    """
    pairs = [(images[n % len(images)], QUESTIONS[n // len(images) % len(QUESTIONS)]) for n in range(requests)]
    bodies = [
        json.dumps(request(name, image, question, max_new_tokens, {"method": method})).encode()
        for image, question in pairs
    ]

    def loop():
        return [lvlm.ask(image, text, method=method, max_new_tokens=max_new_tokens).text for image, text in pairs]

    expected = loop()  # warm
    with httpx.Client(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as http:
        served(http, bodies[: max(CLIENTS)], max(CLIENTS))  # warm
        speeds = {clients: [] for clients in ("loop of ask", *CLIENTS)}
        different = dict.fromkeys(speeds, 0)
        for _ in range(rounds):
            for clients in speeds:
                start = time.perf_counter()
                texts = loop() if clients == "loop of ask" else served(http, bodies, clients)
                speeds[clients].append(requests / (time.perf_counter() - start))
                different[clients] += sum(one != other for one, other in zip(texts, expected, strict=True))
    alone = median(speeds["loop of ask"])
    return [
        {
            "clients": clients,
            "requests_per_second": median(found),
            "lowest": min(found),
            "highest": max(found),
            "over_loop": median(found) / alone,
            "different_answers": different[clients],
        }
        for clients, found in speeds.items()
    ]


def served(http, bodies, clients):
    """The texts of all answers. So many clients share the requests; each waits for its answer before the next."""
    texts, numbers, lock = [None] * len(bodies), iter(range(len(bodies))), threading.Lock()

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            answer = http.post(
                "/v1/chat/completions", content=bodies[number], headers={"Content-Type": "application/json"}
            )
            answer.raise_for_status()
            texts[number] = answer.json()["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts
