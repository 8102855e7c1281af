"""The command `iava sweep`."""

from typing import Annotated, Any

import typer

from iava.cli.options import (
    Data,
    Limit,
    Model,
    RunFolder,
    Seed,
    Split,
    data_folder,
    load_model,
    method_list,
    with_options,
)
from iava.cli.settings import METHOD_NAMES, find_method, hints_of, read_pairs, read_value, settings_of
from iava.errors import IavaError
from iava.methods.registry import check_settings


@with_options
def sweep(
    bench: Annotated[str, typer.Argument(help="Benchmark of captions: chair.", show_default=False)],
    methods: Annotated[str, typer.Option(help=f"Methods to sweep, separated by commas: {METHOD_NAMES}.")],
    out: RunFolder,
    model: Model = "pocket",
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Maximum number of new tokens per caption. Default: 64; the papers use 512.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD.NAME=V1,V2",
            help="The setting that is a method's strength, with its values. Repeatable, once per method. "
            "Default: the method's own list.",
        ),
    ] = None,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Measure captions over each method's whole range of strength, for `iava frontier`. A stopped sweep resumes."""
    from iava.benchmarks.registry import benchmark
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.strengths import candidates, sweep_strengths
    from iava.files import check_folder

    if not benchmark(bench).names_things:
        raise IavaError(f"{bench} asks for no captions: use chair")
    names = method_list("methods", methods)
    grids = _grids(names, grid or [])
    data = data_folder(bench, data, model)
    plan = Plan(
        model,
        settings_of(names, settings),
        split,
        limit,
        seed,
        max_new_tokens=max_new_tokens,
        benchmark=bench,
        data=data,
    )
    for name, own in plan.methods.items():
        candidates(name, own, grids.get(name))
    plan.task  # noqa: B018 - missing or broken data is reported before a model is loaded
    check_folder(out)
    lvlm = load_model(model, **loading)
    with progress() as advance:
        trials = sweep_strengths(lvlm, plan, grids, out, advance)
    print(f"{len(trials)} runs: {out}")
    print(f"next: iava frontier {out} --out ...")


def _grids(names: list[str], texts: list[str]) -> dict[str, dict[str, list[Any]]]:
    grids: dict[str, dict[str, list[Any]]] = {}
    for key, values in read_pairs("--grid", texts).items():
        method, _, setting = key.rpartition(".")
        if method not in names:
            raise IavaError(f"--grid {key} was given, but {method!r} is not among the methods: {', '.join(names)}")
        check_settings(method, [setting])
        hint = hints_of(find_method(method))[setting]
        grids.setdefault(method, {})[setting] = [read_value(value, hint) for value in values.split(",")]
    return grids
