"""Downloads from a server on this machine that speaks the Hub's API."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.hubserver import hub

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.slow
FILE = "data/test-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def pope():
    """POPE's columns with one large picture: 12 MB of noise, more than what is fetched at once."""
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    picture, file = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise).save(picture, format="PNG", compress_level=0)
    row = {"question_id": "1", "question": "Is it?", "answer": "yes", "image_source": "COCO_1", "category": "random"}
    table = pa.Table.from_pylist([row | {"image": {"bytes": picture.getvalue(), "path": "1.png"}}])
    parquet.write_table(table, file, compression="none")
    return {FILE: file.getvalue(), "README.md": b"about", "Full/random-0.parquet": b"another configuration"}


def get(url, folder, name="pope"):
    command = [sys.executable, "-m", "iava", "data", "get", name, "--data", str(folder)]
    env = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_a_download_continues_and_is_ready(pope, tmp_path):
    # The connection breaks in the middle; the rest is asked for, not the whole.
    with hub({"lmms-lab/POPE": pope}, cut_after=11_000_000) as (url, asked):
        ended = get(url, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"1 questions about 1 images: {tmp_path / 'pope'}\n"
    assert (tmp_path / "pope" / FILE).read_bytes() == pope[FILE]
    assert {path.rpartition("/")[2] for path, _ in asked} == {FILE.rpartition("/")[2]}
    assert [span is None for _, span in asked] == [True, False]


def test_the_other_namespace_is_tried(pope, tmp_path):
    with hub({"lmms-lab-encoder/POPE": pope}) as (url, _):
        assert get(url, tmp_path).returncode == 0
        # What is there is not downloaded again.
        ended = get(url, tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_what_cannot_be_had_is_one_line(tmp_path):
    with hub({}) as (url, _):
        ended = get(url, tmp_path)
    assert ended.returncode == 2
    assert "the Hub has no data set lmms-lab/POPE, nor lmms-lab-encoder/POPE" in ended.stderr
    ended = get(url, tmp_path)
    assert ended.returncode == 2
    assert "iava: error: cannot download pope (" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = get(url, tmp_path, "pope-gqa")
    assert "pope-gqa is not on the Hub: get the JSON files of github.com/RUCAIBox/POPE" in ended.stderr
    assert ended.returncode == 2
