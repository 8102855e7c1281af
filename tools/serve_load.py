"""Throughput of the server at 1, 8 and 32 clients, over single `ask` calls in a loop, in one run.

    python -m tools.serve_load                       # the pocket model
    python -m tools.serve_load --model FOLDER --method vcd --max-new-tokens 64 --json out.json

Yes-no questions and captions about scenes of the pocket world. Every answer is compared with that of the loop. The loop
runs first and alone, in this process. The server runs in a process of its own, on the loopback address.
"""

import argparse
import base64
import io
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import torch

from iava.cli.options import load_model
from iava.pocket.scenes import load_scene

CLIENTS = (1, 8, 32)
QUESTIONS = ("Is there a dog in the image?", "Is there a cup in the image?", "Describe this image.")
SCENES = 8


def cases(count):
    """So many (image, question) pairs; images and questions come again, as they do in use."""
    images = [load_scene("test", number).render() for number in range(SCENES)]
    return [(images[number % SCENES], QUESTIONS[number // SCENES % len(QUESTIONS)]) for number in range(count)]


def loop(options, asked):
    """The texts of single `ask` calls, and their seconds."""
    lvlm = load_model(options.model)
    settings = {"method": options.method, "max_new_tokens": options.max_new_tokens}
    for image, question in asked[:3]:
        lvlm.ask(image, question, **settings)
    start = time.perf_counter()
    texts = [lvlm.ask(image, question, **settings).text for image, question in asked]
    return texts, time.perf_counter() - start


def data_uri(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def bodies(options, asked, name):
    """The requests for the same questions."""
    for image, question in asked:
        parts = [{"type": "image_url", "image_url": {"url": data_uri(image)}}, {"type": "text", "text": question}]
        yield {
            "model": name,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": options.max_new_tokens,
            "iava": {"method": options.method},
        }


def served(url, requests, clients):
    """The texts of all requests, sent by so many clients, each waiting for its answer; and their seconds."""
    texts, numbers, lock = [None] * len(requests), iter(range(len(requests))), threading.Lock()

    def work():
        with httpx.Client(base_url=url, timeout=600) as http:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                answer = http.post("/v1/chat/completions", json=requests[number])
                answer.raise_for_status()
                texts[number] = answer.json()["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts, time.perf_counter() - start


def start_server(options):
    """The server's process, and its address."""
    code = "from iava.cli.app import main; main()"
    command = [sys.executable, "-c", code, "serve", options.model, "--port", "0", "--max-batch", str(options.max_batch)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = next(line for line in process.stderr if line.startswith("iava: "))
    return process, re.search(r"http://\S+", said)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--method", default="iava")
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    asked = cases(options.requests)
    texts, seconds = loop(options, asked)
    alone = len(asked) / seconds
    rows = [{"clients": "loop of ask", "requests_per_second": alone, "over_loop": 1.0, "different_answers": 0}]
    process, url = start_server(options)
    try:
        name = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        requests = list(bodies(options, asked, name))
        served(url, requests[:3], 1)
        for clients in CLIENTS:
            found, seconds = served(url, requests, clients)
            speed = len(asked) / seconds
            different = sum(one != other for one, other in zip(found, texts, strict=True))
            rows.append(
                {
                    "clients": clients,
                    "requests_per_second": speed,
                    "over_loop": speed / alone,
                    "different_answers": different,
                }
            )
    finally:
        process.terminate()
        process.wait(60)
    print(f"{options.model}, {options.method}, {options.requests} requests, up to {options.max_new_tokens} new tokens")
    print("| clients | requests a second | over the loop | different answers |")
    print("|---|---|---|---|")
    for row in rows:
        speeds = f"{row['requests_per_second']:.1f} | {row['over_loop']:.2f}"
        print(f"| {row['clients']} | {speeds} | {row['different_answers']} |")
    if options.json:
        about = {"model": options.model, "method": options.method, "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(about, indent=2))
    return int(any(row["different_answers"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
