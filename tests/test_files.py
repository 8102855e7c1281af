"""Files are whole or not there, and asking whether a place can be written leaves no trace."""

import os

import pytest

from iava.files import check_file, check_folder, write_text


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "page.html", "<p>é")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "<p>é"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot write"):
        write_text(tmp_path / "folder", "")
    with pytest.raises(ValueError, match="cannot write"):
        write_text(tmp_path / "missing" / "page.html", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "page.html"]


def test_places_that_can_be_written(tmp_path):
    check_folder(tmp_path / "a" / "b")
    check_file(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot write to"):
            check_folder(folder)
    with pytest.raises(ValueError, match="Is a directory"):
        check_file(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        check_file(tmp_path / "missing" / "page.html")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "page")
    assert os.read(reader, 100) == b"page"
    assert pipe.is_fifo()
    os.close(reader)
