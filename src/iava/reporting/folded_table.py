"""A table that fits a terminal of any width."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

_UNLIMITED = 10_000
"""Width in characters that no table exceeds."""


class FoldedTable:
    """A table for terminals of any width.

    Columns that do not fit beside each other go into further tables below, each with the first column repeated.

    Args:
        headings: the column headings.
        sections: the rows of each section, as rich markup. A row may end early.
    """

    def __init__(self, headings: Sequence[str], sections: Sequence[Sequence[Sequence[str]]]) -> None:
        self.headings = headings
        self.sections = sections

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=_UNLIMITED)
        columns: list[int] = []
        for column in range(1, len(self.headings)):
            wider = Measurement.get(console, unlimited, self._table([*columns, column])).maximum
            if columns and wider > options.max_width:
                yield self._table(columns)
                columns = []
            columns.append(column)
        yield self._table(columns)

    def _table(self, columns: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column(self.headings[0], overflow="fold")
        for column in columns:
            table.add_column(self.headings[column], justify="right", overflow="fold")
        for section in self.sections:
            for row in section:
                table.add_row(row[0], *(row[column] for column in columns if column < len(row)))
            table.add_section()
        return table
