"""One process at a time writes to a run's folder; a lock that a dead process left does not block."""

import os
import signal
import subprocess
import sys

import pytest

from iava.errors import IavaError
from iava.evaluation.lock import locked
from iava.evaluation.plan import Plan
from iava.evaluation.runner import evaluate
from tests.fakes import FakeLVLM

HOLD = """
import sys
from pathlib import Path
from iava.evaluation.lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path, holder):
    plan = Plan("fake", {"greedy": {}}, split="tune-heldout", limit=1)
    with pytest.raises(IavaError, match=f"is in use by process {holder.pid} on .*: wait until it ends, or choose"):
        evaluate(FakeLVLM(), plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    assert len(evaluate(FakeLVLM(), plan, tmp_path)["rows"]) == 4
    assert not (tmp_path / ".lock").exists()


def test_the_lock_is_free_again_behind_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "run"):
        raise KeyboardInterrupt
    with locked(tmp_path / "run"), pytest.raises(IavaError, match="is in use"), locked(tmp_path / "run"):
        pass


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IavaError, match="cannot write"), locked(tmp_path / "file" / "run"):
        pass
