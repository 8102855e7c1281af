"""A run that is killed with SIGKILL and called again ends with the records of one that nobody disturbed."""

import json
import subprocess
import sys
import time

import pytest
import torch

from tests.commands import run

RUN = ("eval", "pope", "--split", "tune", "--limit", "5", "--methods", "greedy,bias,iava", "--tune-images", "2")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def records(path):
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def without_seconds(rows):
    return {(r["id"], r["method"]): {k: v for k, v in r.items() if k != "seconds"} for r in rows}


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_kill_minus_nine_loses_nothing(tmp_path):
    killed, path = tmp_path / "killed", tmp_path / "killed" / "records.jsonl"
    command = [sys.executable, "-m", "iava", *RUN, "--out", str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (path.exists() and path.stat().st_size):
            time.sleep(0.01)
        process.kill()
        complaint = process.stderr.read().decode()
    assert process.returncode == -9, complaint
    assert not (killed / "results.json").exists()
    before = records(path)
    assert run(*RUN, "--out", killed).exit_code == 0
    assert run(*RUN, "--out", tmp_path / "whole").exit_code == 0
    resumed, undisturbed = records(path), records(tmp_path / "whole" / "records.jsonl")
    assert 0 < len(before) < len(undisturbed)
    assert resumed[: len(before)] == before
    assert len(resumed) == len(undisturbed) == len(without_seconds(resumed))
    assert without_seconds(resumed) == without_seconds(undisturbed)
