"""Tables for the terminal, in Markdown and in LaTeX. Special characters in any text are escaped."""

from collections.abc import Sequence

from rich.markup import escape

from iava.metrics.results import Row
from iava.reporting.folded_table import FoldedTable
from iava.reporting.formatting import metric_heading
from iava.reporting.tables import COMPARISON_HEADINGS, Cell, Table, comparison_cells, metric_cell
from iava.reporting.verdicts import title


def console_table(rows: Sequence[Row]) -> FoldedTable:
    """Results for the terminal: metrics, seconds per question, and the comparison with the best control.

    Args:
        rows: see `iava.metrics.results.rows_of`.
    """
    main = {row["main"] for row in rows}
    metrics = [name for name in dict.fromkeys(name for row in rows for name in row["metrics"]) if name != "unparsed"]
    headings = [metric_heading(name, short=True) + (" [95 %]" if name in main else "") for name in metrics]
    sections: dict[str, list[list[str]]] = {}
    for row in rows:
        cells = {name: metric_cell(row, name) for name in metrics}
        values = [_one_line(cell) if name == row["main"] else cell.text for name, cell in cells.items()]
        comparison = map(_one_line, comparison_cells(row, row["main"]))
        name = title(row["method"]) + (" (draws)" if row["draws"] else "")
        section = f"[bold]{escape(row['category'])}[/bold] · {row['n']} questions"
        sections.setdefault(row["category"], [[section]]).append(
            [escape(text) for text in ("  " + name, *values, f"{row['seconds']:.3f}", *comparison)]
        )
    return FoldedTable(["", *headings, "s/question", *COMPARISON_HEADINGS], list(sections.values()))


def _one_line(cell: Cell) -> str:
    return f"{cell.text} {cell.note}".strip()


def markdown(table: Table, level: int = 3) -> str:
    """A GitHub-flavoured Markdown table below its title, a heading of the given level."""
    head = [table.name_heading, *table.headings]
    body = [
        [row.name + (f" ({row.tag})" if row.tag else ""), *(_one_line(cell) for cell in row.cells)]
        for row in table.rows
    ]
    lines = [f"{'#' * level} {escape_markdown(table.title)}", ""]
    if table.note:
        lines += [escape_markdown(table.note), ""]
    head_line, *body_lines = ("| " + " | ".join(map(escape_markdown, cells)) + " |" for cells in (head, *body))
    lines += [head_line, "| --- |" + " ---: |" * len(table.headings), *body_lines]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Text on one line with Markdown's special characters escaped."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\|`*_[]#~$!" else character for character in plain)


def latex(table: Table) -> str:
    """A LaTeX table that needs the package booktabs. A cell's note stands below its text."""
    rows = [[escape_latex(table.name_heading), *map(escape_latex, table.headings)]]
    for row in table.rows:
        name = escape_latex(row.name) + (rf" \textit{{({escape_latex(row.tag)})}}" if row.tag else "")
        rows.append([name, *map(_latex_cell, row.cells)])
    head, *body = (" & ".join(cells) + r" \\" for cells in rows)
    caption = escape_latex(table.title + (f". {table.note}" if table.note else ""))
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.headings)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\shortstack[r]{{{text}\\{{\tiny {escape_latex(cell.note)}}}}}" if cell.note else text


_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "×": r"$\times$",
    "·": r"\textperiodcentered{}",
    "“": "``",
    "”": "''",
    "[": "{[}",
    "]": "{]}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Text on one line with LaTeX's special characters escaped."""
    return "".join(_LATEX_ESCAPES.get(character, character) for character in " ".join(text.split()))
