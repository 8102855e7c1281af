"""Puts a server under load, in one run: wrong answers, leaks, and throughput over a loop of single `ask` calls.

    python -m tools.serve_load                       # the pocket model, about three minutes on two idle cores
    python -m tools.serve_load --model FOLDER --method vcd --max-new-tokens 64 --json out.json

The mixed load comes first: 64 clients, several methods and images, streams, 10 % of the clients leave early, 5 % send
rubbish. Each answer is compared with that of `lvlm.chat`. The throughput follows: yes-no questions and captions about
eight scenes of the pocket world. The server runs in a process of its own, on the loopback address. The exit code is 1
if an answer is wrong, or if the server leaks.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from iava.cli.options import load_model
from iava.pocket.scenes import load_scene
from tools.serve_load.cases import mixed_cases
from tools.serve_load.growth import BLOCKS, leaks, send_blocks
from tools.serve_load.mixed import CLIENTS, Load
from tools.serve_load.process import PRODUCTION, Process
from tools.serve_load.throughput import measure

QUESTIONS = ("Is there a dog in the image?", "Is there a cup in the image?", "Describe this image.")
SCENES = 8
IMAGE_MEMORY = 5
"""Megabytes of images that the server keeps under the mixed load: fewer than the scenes take."""


def mixed(options, lvlm, images):
    """Runs the mixed load, and returns what came out."""
    arguments = ["--port", 0, "--max-batch", options.max_batch, "--image-memory", IMAGE_MEMORY]
    server = Process("serve", options.model, *arguments, environment=PRODUCTION)
    try:
        name = server.http.get("/v1/models").json()["data"][0]["id"]
        load = Load(server.url, mixed_cases(lvlm, name, QUESTIONS, images))
        counts = send_blocks(server, load, options.requests)
        kept = server.metric("iava_image_memory_bytes")
    finally:
        server.process.terminate()
    code, log, _ = server.end()
    return {
        "requests": options.requests,
        "clients": CLIENTS,
        "counts": dict(load.counts),
        "wrong": load.wrong,
        "statuses": sorted({line["status"] for line in log}),
        "requests_per_second": options.requests / load.seconds,
        "memory": counts,
        "kept_images": kept,
        "exit_code": code,
        "leaks": leaks(counts, options.requests, IMAGE_MEMORY * 10**6),
    }


def show_mixed(found):
    """Prints the outcome of the mixed load as tables."""
    counts = found["counts"]
    rows = {
        "requests, clients": f"{found['requests']:,}, {found['clients']}",
        "answered at once, streamed, left early, rubbish": ", ".join(
            f"{counts.get(kind, 0):,}" for kind in ("answered", "streamed", "left", "rubbish")
        ),
        "wrong answers": len(found["wrong"]),
        "status codes": ", ".join(map(str, found["statuses"])),
        "leaks": ", ".join(found["leaks"]) or "none",
        "megabytes of images kept, allowed": f"{found['kept_images'] / 1e6:.1f}, {IMAGE_MEMORY}",
        "exit code after SIGTERM": found["exit_code"],
    }
    print("| mixed load | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    print("\n| requests | resident MB | MB of tensors | tensors | Python objects | threads | open files |")
    print("|---|---|---|---|---|---|---|")
    for number, one in enumerate(found["memory"]):
        print(
            f"| {number * (found['requests'] // BLOCKS):,} | {one['resident'] / 1e6:.0f} "
            f"| {one['tensor_bytes'] / 1e6:.1f} | {one['tensors']} | {one['objects']:,} "
            f"| {one['threads']} | {one['files']} |"
        )
    for wrong in found["wrong"][:5]:
        print(f"wrong: {wrong}", file=sys.stderr)


def throughput(options, lvlm, images):
    """Measures throughput; see `measure`."""
    server = Process("serve", options.model, "--port", 0, "--max-batch", options.max_batch)
    try:
        name = server.http.get("/v1/models").json()["data"][0]["id"]
        return measure(
            lvlm,
            server.url,
            name,
            images,
            method=options.method,
            requests=options.measured,
            max_new_tokens=options.max_new_tokens,
            rounds=options.rounds,
        )
    finally:
        server.process.terminate()
        server.end()


def show_throughput(rows):
    """Prints throughput as a table."""
    print("| clients | requests a second | lowest, highest | over the loop | different answers |")
    print("|---|---|---|---|---|")
    for row in rows:
        spread = f"{row['lowest']:.1f}, {row['highest']:.1f}"
        print(
            f"| {row['clients']} | {row['requests_per_second']:.1f} | {spread} | {row['over_loop']:.2f} "
            f"| {row['different_answers']} |"
        )


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.serve_load", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--requests", type=int, default=2000, help="of the mixed load")
    parser.add_argument("--method", default="iava", help="of the throughput")
    parser.add_argument("--measured", type=int, default=192, help="requests of one measurement of throughput")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of throughput of each kind")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="of the throughput")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lvlm, images = load_model(options.model), [load_scene("test", number).render() for number in range(SCENES)]
    under_load = mixed(options, lvlm, images)
    show_mixed(under_load)
    print(flush=True)
    rows = throughput(options, lvlm, images)
    print(
        f"{options.model}, {options.method}, {options.measured} requests, up to {options.max_new_tokens} new tokens, "
        f"median of {options.rounds} rounds, torch {torch.__version__}, {torch.get_num_threads()} threads\n"
    )
    show_throughput(rows)
    if options.json:
        about = {"model": options.model, "method": options.method, "torch": torch.__version__}
        options.json.write_text(json.dumps({**about, "mixed": under_load, "throughput": rows}, indent=2))
    wrong = under_load["wrong"] or any(row["different_answers"] for row in rows)
    return int(bool(wrong or under_load["leaks"] or under_load["exit_code"]))


if __name__ == "__main__":
    sys.exit(main())
