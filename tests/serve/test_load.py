"""A server under a mixed load: no wrong answer, no leak. The tool that measures throughput compares answers, too."""

from pathlib import Path

import pytest

from iava.lvlm.loading import load
from tests import tiny
from tools.serve_load.cases import mixed_cases
from tools.serve_load.growth import leaks, send_blocks
from tools.serve_load.mixed import CLIENTS, Load
from tools.serve_load.process import PRODUCTION, Process
from tools.serve_load.throughput import measure

pytestmark = pytest.mark.slow

REQUESTS = 2000
QUESTIONS = ("Is there a dog ?", "Where ?", "Describe this image in one", "How many cat ?")
IMAGES = [tiny.image(seed) for seed in range(4)]
IMAGE_MEMORY = 40_000
"""Bytes of images that the server keeps: fewer than the four images take."""


@pytest.fixture(scope="module")
def cases(tiny_folder):
    found = mixed_cases(load(tiny_folder), Path(tiny_folder).name, QUESTIONS, IMAGES)
    # Otherwise an answer to another request could pass for the right one.
    assert len({text for _, text in found}) > len(found) / 3
    return found


def test_no_answer_is_wrong_and_nothing_leaks(tiny_folder, cases):
    options = ["--method", "greedy", "--max-batch", 16, "--max-queue", 80, "--image-memory", IMAGE_MEMORY / 1e6]
    server = Process("serve", tiny_folder, "--port", 0, *options, environment=PRODUCTION)
    under_load = Load(server.url, cases)
    try:
        counts = send_blocks(server, under_load, REQUESTS)
        assert server.metric("iava_requests_in_flight") == 0
        assert server.metric("iava_queue_rows") == 0
        assert server.metric("iava_held_bytes") == 0
        assert server.metric("iava_image_memory_bytes") <= IMAGE_MEMORY
    finally:
        server.process.terminate()
        code, log, _ = server.end()
    assert under_load.wrong == []
    assert under_load.clients == CLIENTS == 64
    assert sum(under_load.counts.values()) == REQUESTS
    assert under_load.counts["rubbish"] > REQUESTS * 0.03
    assert under_load.counts["left"] > REQUESTS * 0.07
    assert code == 0
    assert {line["status"] for line in log} <= {200, 400, 404}
    assert leaks(counts, REQUESTS, IMAGE_MEMORY) == []


def test_what_grows_is_named():
    start = {"objects": 1000, "tensors": 10, "tensor_bytes": 500, "resident": 10**8, "threads": 6, "files": 20}
    steady = {**start, "objects": 1100, "tensor_bytes": 900}
    assert leaks([start, steady, steady, steady, steady], 400, 400) == []
    assert leaks([start, steady, steady, steady, {**steady, "objects": 1400}], 400, 400) == ["Python objects"]
    larger = {**steady, "tensor_bytes": 901, "threads": 7, "files": 26, "resident": 13 * 10**7}
    found = leaks([start, steady, steady, steady, larger], 400, 400)
    assert found == ["tensors beyond the memory of images", "threads", "open files", "resident memory"]


def test_throughput_is_measured_with_equal_answers(tiny_folder):
    server = Process("serve", tiny_folder, "--port", 0)
    try:
        rows = measure(
            load(tiny_folder),
            server.url,
            Path(tiny_folder).name,
            IMAGES,
            method="iava",
            requests=40,
            max_new_tokens=4,
            rounds=1,
        )
    finally:
        server.process.terminate()
        assert server.end()[0] == 0
    assert [row["clients"] for row in rows] == ["loop of ask", 1, 8, 32]
    assert [row["different_answers"] for row in rows] == [0, 0, 0, 0]
    assert rows[0]["over_loop"] == 1
