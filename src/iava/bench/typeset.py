"""Tables in Markdown and LaTeX; whatever text they hold stays text."""

from iava.bench.tables import Cell, Table


def markdown(table: Table, level: int = 3) -> str:
    """A table for GitHub and its like, with its title as a heading."""
    rows = [
        [
            line.name + (f" ({line.tag})" if line.tag else ""),
            *(f"{cell.text} {cell.note}".strip() for cell in line.cells),
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
