"""The command `iava tune`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.settings import hints_of, read_pairs, read_value


def tune(
    method: Annotated[str, typer.Argument(help="A method's name; `iava methods` lists them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The space's folder; the same again goes on with it.", show_default=False)],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")] = "pocket",
    split: Annotated[str, typer.Option(help="tune or tune-heldout.")] = "tune",
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=V1,V2", help="Values to try, once for each setting; without, the method's own."),
    ] = None,
    maximise: Annotated[str, typer.Option(help="accuracy, auc or f1.")] = "accuracy",
    budget: Annotated[int, typer.Option(help="Settings to try at most, the method's defaults among them.")] = 12,
    seed: Annotated[int, typer.Option(help="Of methods that draw tokens, and of a larger grid's part.")] = 42,
) -> None:
    """Chooses a method's settings on a split for tuning; can be stopped and called again."""
    from iava.cli.app import _load
    from iava.cli.console import progress, terminal
    from iava.evaluation.tune import SearchSpace
    from iava.evaluation.tune import tune as run
    from iava.files import check_folder

    space = SearchSpace(model, method, _grid(method, grid or []), split, limit, maximise, budget, seed)
    space.settings()
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        found = run(lvlm, space, out, advance)
    console = terminal()
    console.print(_table(found))
    console.print(f"records and settings: {out}", markup=False)
    console.print(
        f"next: iava eval pope --model {model} --methods greedy,{method} --split {split.replace('tune', 'test')} "
        f"--settings {shlex.quote(str(out / 'tune.json'))} --out ...",
        markup=False,
        soft_wrap=True,
    )


def _grid(method: str, texts: list[str]) -> dict[str, list[Any]]:
    from iava.methods import METHODS, check_settings

    given = read_pairs("--grid", texts)
    check_settings(method, given)
    hints = hints_of(METHODS[method])
    return {name: [read_value(value, hints[name]) for value in values.split(",")] for name, values in given.items()}


def _table(found: dict[str, Any]) -> Any:
    """A row for each setting that was tried, and a column for each that was not always the same."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from iava.reporting.formatting import number, pair

    tried = found["tried"]
    varied = [name for name in tried[0]["settings"] if len({str(one["settings"][name]) for one in tried}) > 1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{found['method']} on {found['split']}")
    for heading in (*varied, "accuracy [95 %]", "F1", "yes", "AUC", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in tried:
        metrics = one["metrics"]
        table.add_row(
            *(escape(str(one["settings"][name])) for name in varied),
            f"{number('accuracy', metrics['accuracy'])} {pair('accuracy', one['intervals']['accuracy'])}",
            *(number(name, metrics[name]) for name in ("f1", "yes_ratio", "auc")),
            f"best {found['maximise']}" if one["settings"] == found["best"] else "",
        )
    return table
