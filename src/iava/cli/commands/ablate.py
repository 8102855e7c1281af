"""The command `iava ablate`."""

from typing import Annotated, Any

import typer

from iava.benchmarks.registry import BENCHMARKS
from iava.cli.options import (
    Data,
    Limit,
    Model,
    RunFolder,
    Seed,
    Tuned,
    TuneSplit,
    data_folder,
    load_model,
    tuned_files,
    with_options,
)
from iava.cli.settings import find_method, hints_of, read_value, settings_of
from iava.errors import IavaError


@with_options
def ablate(
    what: Annotated[
        str,
        typer.Argument(
            help="Setting to vary: i, lambda, alpha, beta, layers, general or negative.", show_default=False
        ),
    ],
    out: RunFolder,
    model: Model = "pocket",
    bench: Annotated[str, typer.Option(help=f"Benchmark: {', '.join(BENCHMARKS)}.")] = "pope",
    data: Data = None,
    split: TuneSplit = None,
    limit: Limit = None,
    value: Annotated[
        list[str] | None, typer.Option(help="Value to try. Repeatable. Default: a fixed list per setting.")
    ] = None,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Vary one of IAVA's settings and measure the effect. An interrupted ablation resumes."""
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.studies.ablate import ABLATIONS, run_ablation

    if what not in ABLATIONS:
        raise IavaError(f"unknown ablation {what!r}: use one of {', '.join(ABLATIONS)}")
    data = data_folder(bench, data, model)
    split = split or ("tune" if data is None else None)
    # An ablation may run on the split that the other settings were tuned on: its table names the split.
    given = read_tuned(tuned_files(tuned), ["iava"], "")
    fixed = settings_of(["iava"], given, settings)["iava"]
    hint = hints_of(find_method("iava"))[ABLATIONS[what]]
    values = [read_value(text, hint) for text in value or []]
    for one in values:
        find_method("iava")(**{**fixed, ABLATIONS[what]: one})
    plan = Plan(model, {"iava": fixed}, split, limit, seed, benchmark=bench, data=data)
    plan.task  # noqa: B018 - missing or broken data is reported before a model is loaded
    check_folder(out)
    lvlm = load_model(model, **loading)
    with progress() as advance:
        run_ablation(lvlm, what, plan, out, values, advance)
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"{out}: results.json, table.md, plot.png")
