"""Results as tables, before they become a page, Markdown or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from iava.metrics.results import Row, is_control
from iava.reporting.formatting import heading, number, p_value, pair, scale
from iava.reporting.verdicts import title

MAIN = ("accuracy", "score")
"""In which methods are compared unless a row names its own; without these the first metric there is."""


AGAINST = ("vs best control", "p (Holm)")
"""Headings of what `compared` gives."""


@dataclass(frozen=True)
class Cell:
    """One number, or whatever else a place in a table holds.

    Args:
        text: what is read.
        note: what stands below it or behind it, such as an interval.
        value: by which a column is sorted; None: last.
    """

    text: str = ""
    note: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Line:
    """One method's numbers.

    Args:
        name: of the method.
        cells: as many as there are headings.
        tag: what kind of a line it is.
        ours: whether it is what the others are there to be compared with.
        whisker: where an interval begins, its estimate, and where it ends, in percent of the table's axis.
    """

    name: str
    cells: Sequence[Cell]
    tag: str = ""
    ours: bool = False
    whisker: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Table:
    """A heading and lines under it.

    Args:
        title, note: what it shows, in a few words and in a sentence.
        head: heading of the names.
        headings: of the other columns.
        axis: ends of the axis on which the lines' whiskers are drawn.
    """

    title: str
    headings: Sequence[str]
    lines: Sequence[Line]
    note: str = ""
    head: str = "Method"
    axis: tuple[str, str] | None = field(default=None)


def main_metric(row: Row) -> str:
    """The metric in which a row's methods are compared."""
    return row.get("main") or next((name for name in MAIN if name in row["metrics"]), next(iter(row["metrics"])))


def estimate(row: Row, metric: str) -> Cell:
    """A metric with its interval."""
    if metric not in row["metrics"]:
        return Cell()
    value, limits = row["metrics"][metric], row["intervals"].get(metric)
    return Cell(number(metric, value), pair(metric, limits) if limits else "", value)


def compared(row: Row, metric: str) -> tuple[Cell, Cell]:
    """By how much a method differs from the best control, and how surely."""
    comparison = row.get("comparison")
    if comparison is None:
        return Cell("best control" if is_control(row["method"]) else ""), Cell()
    difference = comparison["difference"]
    return (
        Cell(number(metric, difference, sign=True), pair(metric, comparison["interval"], sign=True), difference),
        Cell(p_value(comparison), "", comparison["p_holm"]),
    )


def summary(rows: Sequence[Row]) -> Table:
    """The main metric of every method and category."""
    categories = list(dict.fromkeys(row["category"] for row in rows))
    found = {(row["method"], row["category"]): row for row in rows}
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            estimate(row, main_metric(row)) if (row := found.get((method, category))) else Cell()
            for category in categories
        ]
        lines.append(_line(method, cells))
    metrics = dict.fromkeys(heading(main_metric(row)) for row in rows)
    return Table(f"{' / '.join(metrics)} by category", [named(category) for category in categories], lines)


def category_tables(rows: Sequence[Row]) -> list[tuple[str, Table]]:
    """Every number of every category; all whiskers of a metric are on one axis."""
    greedy = {row["category"]: row["seconds"] for row in rows if row["method"] == "greedy"}
    tables = []
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [row for row in rows if row["category"] == category]
        metrics = [
            name for name in dict.fromkeys(name for row in chosen for name in row["metrics"]) if _told(name, chosen)
        ]
        main = main_metric(chosen[0])
        metrics.sort(key=lambda name: name != main)
        low, high = axis(rows, main)
        with_control = any(row.get("comparison") for row in chosen)
        against = AGAINST if with_control else ()
        headings = [heading(main), *against, *(heading(name) for name in metrics[1:]), "Seconds"]
        lines = [
            _line(
                row["method"],
                [
                    estimate(row, main),
                    *(compared(row, main) if with_control else ()),
                    *(estimate(row, name) for name in metrics[1:]),
                    _cost(row, greedy.get(category)),
                ],
                whisker=_whisker(row, main, low, high),
            )
            for row in chosen
        ]
        most = max(row["n"] for row in chosen)
        tables.append(
            (
                category,
                Table(
                    f"{named(category)} · {most:,} questions",
                    headings,
                    lines,
                    axis=(number(main, low), number(main, high)),
                ),
            )
        )
    return tables


def axis(rows: Sequence[Row], metric: str) -> tuple[float, float]:
    """Ends of an axis with room for every interval of a metric."""
    shown = [row for row in rows if row["metrics"].get(metric) is not None]
    ends = [end for row in shown for end in row["intervals"].get(metric, [row["metrics"][metric]])]
    low, high = min(ends), max(ends)
    points = scale(metric) == 1
    room = max(0.06 * (high - low), 2.0 if points else 0.01)
    return max(0.0, low - room), high + room if points else min(1.0, high + room)


def named(category: str) -> str:
    return category[:1].upper() + category[1:].replace("_", " ")


def _told(metric: str, rows: Sequence[Row]) -> bool:
    """Whether a metric tells something: no column for answers that could not be read where there are none."""
    return metric != "unparsed" or any(row["metrics"].get(metric) for row in rows)


def _line(method: str, cells: Sequence[Cell], whisker: tuple[float, float, float] | None = None) -> Line:
    control = is_control(method)
    return Line(title(method), cells, "control" if control else "", not control, whisker)


def _cost(row: Row, greedy: float | None) -> Cell:
    seconds = row["seconds"]
    return Cell(f"{seconds:.3f}", f"× {seconds / greedy:.2f}" if greedy else "", seconds)


def _whisker(row: Row, metric: str, low: float, high: float) -> tuple[float, float, float] | None:
    value, limits = row["metrics"].get(metric), row["intervals"].get(metric)
    if value is None or limits is None:
        return None
    left, middle, right = (round(100 * (end - low) / (high - low), 2) for end in (limits[0], value, limits[1]))
    return left, middle, right
