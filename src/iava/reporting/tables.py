"""Result tables, before they are rendered as HTML, Markdown or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

from iava.metrics.results import Row, is_control
from iava.reporting.formatting import display_scale, format_interval, format_p_value, format_value, metric_heading
from iava.reporting.verdicts import title

_MAIN_METRICS = ("accuracy", "score")
"""The metrics in which methods are compared if a row names no main metric."""

COMPARISON_HEADINGS = ("vs best control", "p (Holm)")
"""The column headings of `comparison_cells`."""


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Args:
        text: the value as text.
        note: small print behind or below the value, such as its interval.
        value: the sort key of the cell. None sorts last.
    """

    text: str = ""
    note: str = ""
    value: float | None = None


@dataclass(frozen=True)
class TableRow:
    """The values of one method.

    Args:
        name: the method's name.
        cells: one for each of the table's `headings`.
        tag: a label beside the name, such as "control".
        highlighted: whether the row stands out, as methods that are not controls do.
        whisker: lower limit, estimate and upper limit, each in percent of the table's axis.
    """

    name: str
    cells: Sequence[Cell]
    tag: str = ""
    highlighted: bool = False
    whisker: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Table:
    """A titled table with one row for each method.

    Args:
        title: a few words.
        headings: the column headings, without that of the names.
        rows: the rows.
        note: a sentence about the table.
        name_heading: the heading of the first column, which holds the names.
        axis: texts at both ends of the axis on which whiskers are drawn. None draws no axis.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[TableRow]
    note: str = ""
    name_heading: str = "Method"
    axis: tuple[str, str] | None = None


def main_metric(row: Row) -> str:
    """The metric in which the methods of a results row are compared."""
    metrics = row["metrics"]
    return row.get("main") or next((name for name in _MAIN_METRICS if name in metrics), next(iter(metrics)))


def metric_cell(row: Row, metric: str) -> Cell:
    """A metric with its interval. The cell is empty if the row does not have the metric."""
    if metric not in row["metrics"]:
        return Cell()
    return value_cell(metric, row["metrics"][metric], row["intervals"].get(metric))


def value_cell(metric: str, value: float | None, limits: Sequence[float] | None = None) -> Cell:
    """A value of a metric with its interval, if there is one."""
    return Cell(format_value(metric, value), format_interval(metric, limits) if limits else "", value)


def difference_cell(metric: str, difference: float, limits: Sequence[float]) -> Cell:
    """A signed difference of a metric with its interval."""
    signed = format_value(metric, difference, sign=True)
    return Cell(signed, format_interval(metric, limits, sign=True), difference)


def comparison_cells(row: Row, metric: str) -> tuple[Cell, Cell]:
    """A method's difference from the best control of its decoding mode, and the p-value of that difference."""
    comparison = row["comparison"]
    if comparison is None:
        best = "best that draws" if row["draws"] else "best control"
        return Cell(best if is_control(row["method"]) else ""), Cell()
    return (
        difference_cell(metric, comparison["difference"], comparison["interval"]),
        Cell(format_p_value(comparison), "", comparison["p_holm"]),
    )


def summary_table(rows: Sequence[Row]) -> Table:
    """The main metric of every method, with a column for each category."""
    categories = list(dict.fromkeys(row["category"] for row in rows))
    by_cell = {(row["method"], row["category"]): row for row in rows}
    table_rows = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            metric_cell(row, main_metric(row)) if (row := by_cell.get((method, category))) else Cell()
            for category in categories
        ]
        first = next(row for row in rows if row["method"] == method)
        table_rows.append(method_row(first, cells))
    metrics = dict.fromkeys(metric_heading(main_metric(row)) for row in rows)
    headings = [category_heading(category) for category in categories]
    return Table(f"{' / '.join(metrics)} by category", headings, table_rows)


def category_tables(rows: Sequence[Row]) -> list[tuple[str, Table]]:
    """A table of all metrics for each category. Whiskers of one metric share an axis across the tables."""
    greedy_seconds = {row["category"]: row["seconds"] for row in rows if row["method"] == "greedy"}
    tables = []
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [row for row in rows if row["category"] == category]
        tables.append((category, _category_table(category, chosen, rows, greedy_seconds.get(category))))
    return tables


def _category_table(category: str, chosen: Sequence[Row], rows: Sequence[Row], greedy_seconds: float | None) -> Table:
    main = main_metric(chosen[0])
    names = dict.fromkeys(name for row in chosen for name in row["metrics"])
    others = [name for name in names if name != main and _is_informative(name, chosen)]
    with_control = any(row.get("comparison") for row in chosen)
    low, high = axis_limits(rows, main)
    table_rows = [
        method_row(
            row,
            [
                metric_cell(row, main),
                *(comparison_cells(row, main) if with_control else ()),
                *(metric_cell(row, name) for name in others),
                _seconds_cell(row, greedy_seconds),
            ],
            _whisker(row, main, low, high),
        )
        for row in chosen
    ]
    comparison = COMPARISON_HEADINGS if with_control else ()
    headings = [metric_heading(main), *comparison, *map(metric_heading, others), "Seconds"]
    questions = max(row["n"] for row in chosen)
    return Table(
        f"{category_heading(category)} · {questions:,} questions",
        headings,
        table_rows,
        axis=(format_value(main, low), format_value(main, high)),
    )


def axis_limits(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    """Both ends of an axis that holds every interval of a metric, with a margin."""
    measured = [row for row in rows if row["metrics"].get(metric) is not None]
    limits = [limit for row in measured for limit in row["intervals"].get(metric, [row["metrics"][metric]])]
    low, high = min(limits), max(limits)
    in_points = display_scale(metric) == 1
    margin = max(0.06 * (high - low), 2.0 if in_points else 0.01)
    return max(0.0, low - margin), high + margin if in_points else min(1.0, high + margin)


def category_heading(category: str) -> str:
    """A category's name as a heading, such as "Text translation"."""
    return category[:1].upper() + category[1:].replace("_", " ")


def _is_informative(metric: str, rows: Sequence[Row]) -> bool:
    """False for the share of unparsed answers where every answer was parsed."""
    return metric != "unparsed" or any(row["metrics"].get(metric) for row in rows)


def method_row(row: Row, cells: Sequence[Cell], whisker: tuple[float, float, float] | None = None) -> TableRow:
    """A table row under the title of a result's method.

    Controls and methods that draw are tagged, and those that are not controls are highlighted.
    """
    control = is_control(row["method"])
    tags = (*(["control"] if control else []), *(["draws"] if row["draws"] else []))
    return TableRow(title(row["method"]), cells, ", ".join(tags), not control, whisker)


def _seconds_cell(row: Row, greedy_seconds: float | None) -> Cell:
    seconds = row["seconds"]
    return Cell(f"{seconds:.3f}", f"× {seconds / greedy_seconds:.2f}" if greedy_seconds else "", seconds)


def _whisker(row: Row, metric: str, low: float, high: float) -> tuple[float, float, float] | None:
    value, limits = row["metrics"].get(metric), row["intervals"].get(metric)
    if value is None or limits is None:
        return None
    left, middle, right = (round(100 * (end - low) / (high - low), 2) for end in (limits[0], value, limits[1]))
    return left, middle, right
