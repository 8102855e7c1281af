"""`iava report`: what runs found, as a page and as tables."""

from pathlib import Path
from typing import Annotated

import typer

from iava.errors import IavaError


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of runs; parts of one run become one.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The page; its tables go beside it as .md and .tex.")] = Path("report.html"),
) -> None:
    """Writes a page about one or more runs, and their tables in Markdown and LaTeX."""
    from iava.files import check_file

    if out.suffix != ".html":
        raise IavaError(f"out is {out}: it must end in .html; .md and .tex go beside it")
    check_file(out)
    from iava.evaluation.runs import read_runs
    from iava.reporting.report import write_report

    for file in write_report(out, read_runs(folders)):
        print(file)
