"""Tables on the terminal, in Markdown and LaTeX; whatever text they hold stays text."""

from collections.abc import Sequence

from rich import box
from rich import table as rich
from rich.markup import escape

from iava.metrics.results import Row
from iava.reporting.formatting import heading
from iava.reporting.tables import AGAINST, Cell, Table, compared, estimate
from iava.reporting.verdicts import title


def console_table(rows: Sequence[Row]) -> rich.Table:
    """Results for the terminal, in one table; seconds a question."""
    table = rich.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    main = {row["main"] for row in rows}
    names = [name for name in dict.fromkeys(name for row in rows for name in row["metrics"]) if name != "unparsed"]
    shown = [heading(name, short=True) + (" [95 %]" if name in main else "") for name in names]
    for text in (*shown, "s/question", *AGAINST):
        table.add_column(text, justify="right", no_wrap=True)
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [row for row in rows if row["category"] == category]
        table.add_row(f"[bold]{escape(category)}[/bold] · {chosen[0]['n']} questions")
        for row in chosen:
            found = {name: estimate(row, name) for name in names}
            estimates = [_line(cell) if name == row["main"] else cell.text for name, cell in found.items()]
            against = [_line(cell) for cell in compared(row, row["main"])]
            table.add_row(
                escape("  " + title(row["method"])), *map(escape, (*estimates, f"{row['seconds']:.3f}", *against))
            )
        table.add_section()
    return table


def _line(cell: Cell) -> str:
    return f"{cell.text} {cell.note}".strip()


def markdown(table: Table, level: int = 3) -> str:
    """A table for GitHub and its like, with its title as a heading."""
    rows = [
        [
            line.name + (f" ({line.tag})" if line.tag else ""),
            *map(_line, line.cells),
        ]
        for line in table.lines
    ]
    parts = [f"{'#' * level} {markdown_text(table.title)}", ""]
    if table.note:
        parts += [markdown_text(table.note), ""]
    for cells in ([table.head, *table.headings], ["---", *["---:"] * len(table.headings)], *rows):
        parts.append("| " + " | ".join(cells if cells[0] == "---" else map(markdown_text, cells)) + " |")
    return "\n".join(parts) + "\n"


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{sign}" if sign in "\\|`*_[]#~$!" else sign for sign in plain)


def latex(table: Table) -> str:
    """A table for LaTeX with booktabs; what stands below a number in the report stands below it here."""
    columns = "l" + "r" * len(table.headings)
    rows = [[latex_text(table.head), *(latex_text(text) for text in table.headings)]]
    for line in table.lines:
        name = latex_text(line.name) + (rf" \textit{{({latex_text(line.tag)})}}" if line.tag else "")
        rows.append([name, *(_latex(cell) for cell in line.cells)])
    head, *body = (" & ".join(cells) + r" \\" for cells in rows)
    caption = latex_text(table.title + (f". {table.note}" if table.note else ""))
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{caption}}}",
    ]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex(cell: Cell) -> str:
    text = latex_text(cell.text)
    return rf"\shortstack[r]{{{text}\\{{\tiny {latex_text(cell.note)}}}}}" if cell.note else text


_LATEX = {
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
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
