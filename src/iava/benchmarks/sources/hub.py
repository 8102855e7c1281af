"""Data sets as the Hugging Face Hub has them: a folder of parquet files with the images inside."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from iava.benchmarks.task import Located, Question, Task, by_group
from iava.errors import IavaError
from iava.lvlm.images import read_image

HubRow = dict[str, Any]


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a downloaded data set: those of the split, or all if none is named after it.

    Args:
        folder: the download, its subfolder `data`, or the data set's folder in the cache of the Hub.
    """
    places = ("*.parquet", "data/*.parquet", "snapshots/*/*.parquet", "snapshots/*/data/*.parquet")
    found = next((files for place in places if (files := sorted(folder.glob(place)))), [])
    files = [file for file in found if file.parent == found[-1].parent]
    return [file for file in files if file.name.startswith(split)] or files


def parquet_task(
    benchmark: str,
    split: str,
    files: Sequence[Path],
    columns: Sequence[str],
    ask: Callable[[str, HubRow], Question],
    arrange: Callable[[Located], Located],
    read: Callable[[Question, str], Any] | None = None,
) -> Task:
    """A task from parquet files. An image is read when it is asked about.

    Args:
        files: of the split; at least one.
        columns: that `ask` needs.
        ask: where a row stands, and the row -> its question about one image.
        arrange: checks and completes the questions, such as their ids.
        read: see `Task`.

    Raises:
        IavaError: if pyarrow is missing, a file is truncated, lacks a column or has no rows; with file and row.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise IavaError(f"{files[0]} can only be read with pyarrow: pip install pyarrow") from None
    places: dict[str, tuple[Path, int, int]] = {}
    located: Located = []
    for file in files:
        for where, group, index, row in _parquet_rows(file, columns):
            question = ask(where, row)
            places.setdefault(question.image, (file, group, index))
            located.append((where, question))
    if not located:
        raise IavaError(f"{files[0]} has no rows")
    questions = by_group([question for _, question in arrange(located)])
    # Neighbours in a row group are mostly asked about one after the other.
    column = lru_cache(maxsize=2)(_image_column)

    def open_image(image: str) -> Image.Image:
        if image not in places:
            raise IavaError(f"{files[0].parent} has no image {image}")
        return _open(column, *places[image])

    return Task(benchmark, split, questions, open_image, read)


def _parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, int, int, HubRow]]:
    """The place of each row, its row group, its number in that, and the columns."""
    with _one_line_errors(file):
        parquet = _parquet(file)
        lacking = [name for name in (*columns, "image") if name not in parquet.schema_arrow.names]
        groups = parquet.metadata.num_row_groups
    if lacking:
        raise IavaError(f"{file} has no column {lacking[0]!r}: it needs {', '.join((*columns, 'image'))}")
    number = 0
    for group in range(groups):
        with _one_line_errors(file):
            rows = parquet.read_row_group(group, columns=list(columns)).to_pylist()
        for index, row in enumerate(rows):
            number += 1
            yield f"{file}, row {number}", group, index, row


def _open(column: Callable[[Path, int], Any], file: Path, group: int, index: int) -> Image.Image:
    with _one_line_errors(file):
        cell = column(file, group)[index].as_py()
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise IavaError(f"{file}, row {index + 1} of row group {group + 1}, has no image in it")
    return read_image(data)


def _image_column(file: Path, group: int) -> Any:
    return _parquet(file).read_row_group(group, columns=["image"]).column("image")


def _parquet(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(file)


@contextmanager
def _one_line_errors(file: Path) -> Iterator[None]:
    """Turns what pyarrow says about a broken file into one line."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise IavaError(f"{file} is truncated or no parquet file ({reason})") from None
