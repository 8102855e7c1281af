"""Special characters stay inside their cells, and console tables fit the terminal."""

import io
import re

import pytest
from rich.console import Console

from iava.reporting.formatting import format_p_value
from iava.reporting.renderers import console_table, escape_latex, latex, markdown
from iava.reporting.tables import Cell, Table, TableRow
from tests.reporting.test_tables import row

ROWS = [
    TableRow("a|b_*c*", [Cell("1 & 2", "[50 %]"), Cell("x\ny")], "tag"),
    TableRow("<script>", [Cell(), Cell("$\\x{}~^#")]),
]
HOSTILE = Table("100 % <b>|", ["h_1", "`h2`"], ROWS, "note & more", "who?")


def test_markdown_keeps_every_cell_in_its_column():
    lines = markdown(HOSTILE).splitlines()
    assert lines[0] == r"### 100 % &lt;b&gt;\|"
    assert lines[4:] == [
        r"| who? | h\_1 | \`h2\` |",
        "| --- | ---: | ---: |",
        r"| a\|b\_\*c\* (tag) | 1 &amp; 2 \[50 %\] | x y |",
        r"| &lt;script&gt; |  | \$\\x{}\~^\# |",
    ]


def test_latex_is_escaped_text_between_booktabs_rules():
    text = latex(HOSTILE)
    assert r"\caption{100 \% \textless{}b\textgreater{}|. note \& more}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert body == [
        r"a|b\_*c* \textit{(tag)} & \shortstack[r]{1 \& 2\\{\tiny {[}50 \%{]}}} & x y \\",
        r"\textless{}script\textgreater{} &  & \$\textbackslash{}x\{\}\textasciitilde{}\textasciicircum{}\# \\",
    ]
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 1
    assert escape_latex("a\\input{/etc}") == r"a\textbackslash{}input\{/etc\}"


NAMES = "score chair cover hal cog accuracy precision recall f1 yes_ratio auc existence attribute relation unparsed"
AMBER = {name: number / 100 for number, name in enumerate(NAMES.split(), start=1)}
"""The metrics of AMBER, which make sixteen columns with seconds and comparison."""


def amber_rows():
    comparison = {"control": "greedy", "difference": 1.5, "interval": [-2.0, 4.0], "p": 0.1, "p_holm": 0.25}
    rows = [
        row(method, category, AMBER, comparison if method == "iava" else None, main="score")
        for category in ("overall", "a category with quite a long name")
        for method in ("greedy", "iava")
    ]
    for number, one in enumerate(rows):
        one["seconds"] = 1.25 + number
    return rows


def printed(rows, width):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(console_table(rows))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_a_table_of_many_columns_fits_any_terminal(width):
    text = printed(amber_rows(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    headings = ["Score [95 %]", "CHAIR", "Cover", "Hal", "Cog", "Accuracy", "Prec.", "Recall", "F1", "Yes", "AUC"]
    headings += ["Existence", "Attribute", "Relation", "s/question", "vs best control", "p (Holm)"]
    assert [heading for heading in headings if text.count(heading) != 1] == []
    # Values of the four rows, which no terminal width may drop or split.
    for value in ("14.0", "+1.5 [-2.0, +4.0]", "1.250", "2.250", "3.250", "4.250"):
        assert value in text
    blocks = len(re.findall("overall", text))
    assert blocks == text.count("a category with quite a long name")
    assert (blocks == 1) == (width == 400)


def test_the_console_table_names_methods_categories_and_p_values():
    text = printed(amber_rows(), 400)
    for words in ("overall · 40 questions", "greedy", "IAVA", "best control", "0.250"):
        assert words in text
    assert format_p_value({"p_holm": 0.0004}) == "< 0.001"
