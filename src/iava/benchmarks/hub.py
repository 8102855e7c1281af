"""Benchmarks as the Hugging Face Hub has them: a folder of parquet files, images inside."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from iava.benchmarks import mme, textvqa
from iava.benchmarks.task import Located, Question, Task, by_image
from iava.errors import IavaError
from iava.jsonfiles import Unique, id_of, text_of, texts_of, words_of, yes_or_no
from iava.lvlm.images import read_image

NAMES = {"pope": "lmms-lab/POPE", "mme": "lmms-lab/MME", "textvqa": "lmms-lab/textvqa"}
"""Benchmark -> data set."""
_SPLITS = {"pope": "test", "mme": "test", "textvqa": "validation"}
_COLUMNS = {
    "pope": ("question_id", "question", "answer", "image_source", "category"),
    "mme": ("question_id", "question", "answer", "category"),
    "textvqa": ("question_id", "question", "answers", "image_id"),
}


def parquet_files(benchmark: str, folder: Path) -> list[Path]:
    """A benchmark's files in a folder or its subfolder `data`: those of the split, or all if none is named after it."""
    files = [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))]
    return [file for file in files if file.name.startswith(_SPLITS[benchmark])] or files


def read_hub(benchmark: str, folder: Path) -> Task:
    """Reads a data set that was downloaded from the Hub; images are read when they are asked for.

    Args:
        benchmark: "pope", "mme" or "textvqa".
        folder: holds the parquet files, or has a subfolder `data` that does.

    Raises:
        IavaError: if pyarrow is missing, there is no file, one is truncated or lacks a column, a label is neither yes
            nor no, or an id stands twice; with file and row.
    """
    files = parquet_files(benchmark, folder)
    if not files:
        raise IavaError(f"{folder} has no parquet file, nor has {folder / 'data'}")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise IavaError(f"{files[0]} can only be read with pyarrow: pip install pyarrow") from None
    ids = Unique("question_id")
    places: dict[str, tuple[Path, int, int]] = {}
    located: Located = []
    for file in files:
        for where, group, index, row in _rows(file, _COLUMNS[benchmark]):
            question = _QUESTIONS[benchmark](where, row)
            if benchmark != "mme":
                ids.add(where, question.id)
            places.setdefault(question.image, (file, group, index))
            located.append((where, question))
    if not located:
        raise IavaError(f"{files[0]} has no rows")
    if benchmark == "mme":
        located = mme.paired(located)
    questions = by_image([question for _, question in located])
    # Neighbours in a row group are mostly asked about one after the other.
    column = lru_cache(maxsize=2)(_image_column)
    read = (lambda _, text: textvqa.normalize(text)) if benchmark == "textvqa" else None
    return Task(benchmark, _SPLITS[benchmark], questions, lambda image: _open(column, *places[image]), read)


def _pope(where: str, row: dict[str, Any]) -> Question:
    image, category = text_of(where, row, "image_source"), text_of(where, row, "category")
    # The questions of each category are numbered from one.
    name = f"{category}-{id_of(where, row, 'question_id')}"
    return Question(name, image, category, words_of(where, row, "question"), yes_or_no(where, row, "answer"))


def _mme(where: str, row: dict[str, Any]) -> Question:
    image, subtask = id_of(where, row, "question_id"), mme.check_subtask(where, text_of(where, row, "category"))
    return Question(image, image, subtask, words_of(where, row, "question"), yes_or_no(where, row, "answer"))


def _textvqa(where: str, row: dict[str, Any]) -> Question:
    answers = textvqa.ten_answers(where, texts_of(where, row, "answers"))
    image = id_of(where, row, "image_id")
    asked = textvqa.PROMPT.format(words_of(where, row, "question"))
    return Question(id_of(where, row, "question_id"), image, "textvqa", asked, answers)


_QUESTIONS: dict[str, Callable[[str, dict[str, Any]], Question]] = {"pope": _pope, "mme": _mme, "textvqa": _textvqa}


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Of each row where it stands, its row group, its number in that, and the columns."""
    with _whole(file):
        parquet = _parquet(file)
        lacking = [name for name in (*columns, "image") if name not in parquet.schema_arrow.names]
        groups = parquet.metadata.num_row_groups
    if lacking:
        raise IavaError(f"{file} has no column {lacking[0]!r}: it needs {', '.join((*columns, 'image'))}")
    number = 0
    for group in range(groups):
        with _whole(file):
            rows = parquet.read_row_group(group, columns=list(columns)).to_pylist()
        for index, row in enumerate(rows):
            number += 1
            yield f"{file}, row {number}", group, index, row


def _open(column: Callable[[Path, int], Any], file: Path, group: int, index: int) -> Image.Image:
    with _whole(file):
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
def _whole(file: Path) -> Iterator[None]:
    """Turns what pyarrow says about a broken file into one line."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise IavaError(f"{file} is truncated or no parquet file ({reason})") from None
