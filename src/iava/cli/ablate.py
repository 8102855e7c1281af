"""The command `iava ablate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.settings import read_value, settings_of, with_settings
from iava.errors import IavaError


@with_settings
def ablate(
    what: Annotated[
        str, typer.Argument(help="i, lambda, alpha, beta, layers, general or negative.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where it goes; the same again goes on with it.", show_default=False)],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")] = "pocket",
    bench: Annotated[str, typer.Option(help="A benchmark of `iava eval`.")] = "pope",
    data: Annotated[Path | None, typer.Option(help="As for `iava eval`.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the pocket scenes; by default tune.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    value: Annotated[
        list[str] | None, typer.Option(help="A value to try, as often as needed; without, the usual ones.")
    ] = None,
    tuned: Annotated[
        str | None, typer.Option("--settings", help="What stays, as `iava tune iava` found it: its tune.json.")
    ] = None,
    *,
    settings: dict[str, Any],
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 42,
) -> None:
    """Varies one of IAVA's settings and measures what it does; can be stopped and called again."""
    from typing import get_type_hints

    from iava.cli.app import _load, pocket_scenes
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.methods import METHODS
    from iava.studies.ablate import SETTINGS
    from iava.studies.ablate import ablate as run

    if what not in SETTINGS:
        raise IavaError(f"unknown ablation {what!r}: use one of {', '.join(SETTINGS)}")
    data = pocket_scenes(bench, data, model)
    split = split or ("tune" if data is None else None)
    # An ablation may be on the split that the rest was tuned on: it says which.
    given = read_tuned([Path(tuned)] if tuned else [], ["iava"], "")
    stays = settings_of(["iava"], given, settings)["iava"]
    hint = get_type_hints(METHODS["iava"].__init__)[SETTINGS[what]]
    values = [read_value(text, hint) for text in value or []]
    for one in values:
        METHODS["iava"](**{**stays, SETTINGS[what]: one})
    plan = Plan(model, {"iava": stays}, split, limit, seed, benchmark=bench, data=data)
    plan.task  # noqa: B018 - what is missing or broken is said before a model is loaded
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        run(lvlm, what, plan, out, values, advance)
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"{out}: results.json, table.md, plot.png")
