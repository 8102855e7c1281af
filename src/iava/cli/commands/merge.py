"""The command `iava merge`."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    shards: Annotated[list[Path], typer.Argument(help="Folders of all shards of one run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder for the whole run.", show_default=False)],
) -> None:
    """Join the shards that `iava eval --shard` wrote into one run."""
    from iava.cli.console import print_results
    from iava.evaluation.merge import merge as join

    print_results(join(shards, out), out)
