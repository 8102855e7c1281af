"""The command `iava report`."""

from pathlib import Path
from typing import Annotated

import typer

from iava.errors import IavaError


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs, or of sweeps; shards of one run count as one run, and a sweep of captions is shown "
            "as a frontier.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="HTML file to write; the same tables are written beside it as .md and .tex.")
    ] = Path("report.html"),
) -> None:
    """Write an HTML report about one or more runs, with its tables in Markdown and LaTeX."""
    from iava.files import check_file

    if out.suffix != ".html":
        raise IavaError(f"out is {out}: it must end in .html; .md and .tex are written beside it")
    check_file(out)
    from iava.evaluation.runs import read_runs, run_folders
    from iava.reporting.report import write_report

    for file in write_report(out, read_runs(run_folders(folders))):
        print(file)
