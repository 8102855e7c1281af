"""Records that do not fit on the disk are not lost without a word, and odd texts come back as they were."""

import subprocess
import sys

import pytest

from iava.errors import IavaError
from iava.evaluation.records import Records, check_unique, read_records

FULL = """
import resource, signal, sys
from pathlib import Path
from iava.errors import IavaError
from iava.evaluation.records import Records

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
records = Records(path)
records.append([{"id": "first", "text": "x" * 100}])
size = path.stat().st_size
# From here on a file takes 200 bytes more: the second write is short, and the next one fails.
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200, resource.RLIM_INFINITY))
try:
    records.append([{"id": "second", "text": "y" * 1000}])
except IavaError as error:
    print(error)
assert path.stat().st_size == size
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
records.append([{"id": "third", "text": "z"}])
"""


@pytest.mark.slow
def test_a_short_write_is_an_error_and_leaves_whole_lines(tmp_path):
    path = tmp_path / "records.jsonl"
    ended = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"cannot write {path} (File too large)")
    assert [row["id"] for row in Records(path).rows] == ["first", "third"]


def test_a_lone_surrogate_and_other_scripts_come_back(tmp_path):
    path = tmp_path / "records.jsonl"
    rows = [{"id": "1", "text": "caf\u00e9 \u72d7 \u2028"}, {"id": "2", "text": "\ud800"}]
    Records(path).append(rows)
    assert Records(path).rows == rows
    assert "caf\u00e9 \u72d7".encode() in path.read_bytes()


def test_rows_of_another_shape_and_double_answers_are_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"id": "1", "method": "greedy"}\n' * 2 + "[1]\n")
    with pytest.raises(IavaError, match="line 3, is no record of this run"):
        Records(path)
    path.write_text('{"id": "1", "method": "greedy"}\n' * 2)
    rows, _ = read_records(path, lambda row: True)
    with pytest.raises(IavaError, match=r"line 2: greedy answered 1 before \(line 1\)"):
        check_unique(path, rows)
