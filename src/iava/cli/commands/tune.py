"""The command `iava tune`."""

import shlex
from typing import Annotated, Any

import typer

from iava.cli.options import Limit, Model, RunFolder, load_model, with_options
from iava.cli.settings import METHOD_NAMES, find_method, hints_of, read_pairs, read_value
from iava.methods.checks import MAX_SEED
from iava.methods.registry import check_settings


@with_options
def tune(
    method: Annotated[str, typer.Argument(help=f"Method to tune: {METHOD_NAMES}.", show_default=False)],
    out: RunFolder,
    model: Model = "pocket",
    split: Annotated[str, typer.Option(help="Split of the pocket scenes to tune on: tune or tune-heldout.")] = "tune",
    limit: Limit = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=V1,V2",
            help="Values to try for one setting. Repeatable, once per setting. Default: the method's own grid.",
        ),
    ] = None,
    maximise: Annotated[str, typer.Option(help="Metric to maximise: accuracy, auc or f1.")] = "accuracy",
    budget: Annotated[
        int, typer.Option(help="Maximum number of combinations to try, the method's defaults included.")
    ] = 12,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_SEED, help="Random seed for sampling, and for the part of a grid that exceeds the budget."
        ),
    ] = 42,
    *,
    loading: dict[str, Any],
) -> None:
    """Choose a method's settings on a tuning split. An interrupted search resumes."""
    from iava.cli.console import progress, terminal
    from iava.evaluation.tune import SearchSpace
    from iava.evaluation.tune import tune as run
    from iava.files import check_folder

    space = SearchSpace(model, method, _read_grid(method, grid or []), split, limit, maximise, budget, seed)
    space.settings()
    check_folder(out)
    lvlm = load_model(model, **loading)
    with progress() as advance:
        found = run(lvlm, space, out, advance)
    console = terminal()
    console.print(_trial_table(found))
    console.print(f"records and settings: {out}", markup=False)
    following = ["iava", "eval", "pope", "--model", model, "--data", "pocket", "--methods", f"greedy,{method}"]
    following += ["--split", split.replace("tune", "test"), "--settings", str(out / "tune.json")]
    console.print(f"next: {shlex.join(following)} --out ...", markup=False, soft_wrap=True)


def _read_grid(method: str, texts: list[str]) -> dict[str, list[Any]]:
    hints = hints_of(find_method(method))
    given = read_pairs("--grid", texts)
    check_settings(method, given)
    return {name: [read_value(value, hints[name]) for value in values.split(",")] for name, values in given.items()}


def _trial_table(found: dict[str, Any]) -> Any:
    """Returns one row per combination, named by the settings that vary."""
    from rich.markup import escape

    from iava.reporting.folded_table import FoldedTable
    from iava.reporting.formatting import format_interval, format_value

    tried = found["tried"]
    varied = [name for name in tried[0]["settings"] if len({str(one["settings"][name]) for one in tried}) > 1]
    rows = []
    for one in tried:
        metrics, interval = one["metrics"], format_interval("accuracy", one["intervals"]["accuracy"])
        row = [
            ", ".join(f"{name}={one['settings'][name]}" for name in varied),
            f"{format_value('accuracy', metrics['accuracy'])} {interval}",
            *(format_value(name, metrics[name]) for name in ("f1", "yes_ratio", "auc")),
            f"best {found['maximise']}" if one["settings"] == found["best"] else "",
        ]
        rows.append([escape(text) for text in row])
    heading = f"{found['method']} on {found['split']}"
    return FoldedTable([heading, "accuracy [95 %]", "F1", "yes", "AUC", ""], [rows])
