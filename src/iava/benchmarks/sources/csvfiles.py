"""Reads CSV files that others wrote."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from iava.errors import IavaError
from iava.jsonfiles import read_text


def read_csv(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a heading.

    Yields:
        Where a row stands ("Questions.csv, line 7"), for messages about it, and its columns.

    Raises:
        IavaError: if the file cannot be read, has no rows, or a row has too few or too many columns.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    empty = True
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise IavaError(f"{where}: the row has not as many columns as the heading")
            empty = False
            yield where, row
    except csv.Error as error:
        raise IavaError(f"{path}, line {reader.line_num}: {error}") from None
    if empty:
        raise IavaError(f"{path} has no rows")
