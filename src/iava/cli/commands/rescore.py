"""The command `iava rescore`."""

from pathlib import Path
from typing import Annotated

import typer


def rescore(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    parser: Annotated[
        str,
        typer.Option(help="How answers are read: word, pope, opera, vcd, exact or official.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the run as it is read now. Default: print the table only.")
    ] = None,
) -> None:
    """Read the answers of a run again with another parser. The model is not asked."""
    from iava.cli.console import terminal
    from iava.evaluation.rescore import rescore as read_again
    from iava.reporting.renderers import console_table
    from iava.reporting.verdicts import verdicts

    results = read_again(run, parser, out)
    console = terminal()
    console.print(console_table(results["rows"]))
    for sentence in verdicts(results["rows"]):
        console.print(sentence, style="bold", markup=False)
    if out is not None:
        console.print(f"records and results: {out}", markup=False)
