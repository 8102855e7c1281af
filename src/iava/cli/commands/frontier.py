"""The command `iava frontier`."""

from pathlib import Path
from typing import Annotated

import typer

from iava.cli.options import method_list
from iava.errors import IavaError


def frontier(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders of sweeps, or of runs, with captions of the same images.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option(help="HTML file to write; the tables are written beside it as .md, .tex and .json.")
    ] = Path("frontier.html"),
    metric: Annotated[str, typer.Option(help="Metric to match, and to draw against CHAIRi: recall or object_f1.")] = (
        "recall"
    ),
    controls: Annotated[
        str | None,
        typer.Option(
            help="Methods that make the frontier, separated by commas. Default: all controls without a contrast branch."
        ),
    ] = None,
    chosen: Annotated[
        Path | None,
        typer.Option(
            help="The .json of a frontier on a split for tuning: of each method, only the setting that was best there "
            "is tested. Default: all settings are tested."
        ),
    ] = None,
) -> None:
    """Compare captions at the same recall and the same length with the frontier of the trivial controls."""
    from iava.files import check_file

    if out.suffix != ".html":
        raise IavaError(f"out is {out}: it must end in .html; .md, .tex and .json are written beside it")
    check_file(out)
    from iava.cli.console import terminal
    from iava.evaluation.frontier import frontier as compare
    from iava.evaluation.frontier import read_chosen, results
    from iava.evaluation.records import write_json
    from iava.evaluation.runs import read_runs, run_folders
    from iava.reporting.frontier import frontier_verdicts, write_frontier

    found = compare(
        read_runs(run_folders(folders)),
        metric=metric,
        controls=None if controls is None else method_list("controls", controls),
        chosen=None if chosen is None else read_chosen(chosen),
    )
    written = write_frontier(out, found)
    write_json(out.with_suffix(".json"), results(found))
    console = terminal()
    for sentence in frontier_verdicts(found):
        console.print(sentence, markup=False)
    for file in (*written, out.with_suffix(".json")):
        print(file)
