"""The command `iava study`: the paper's open questions, one subcommand each."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli_settings import settings_of, with_settings

study = typer.Typer(help="The paper's open questions, answered with numbers.")

Out = Annotated[Path, typer.Option(help="Where it goes; the same again goes on with it.", show_default=False)]
Model = Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")]
Bench = Annotated[str, typer.Option(help="pope, pope-aokvqa or pope-gqa.")]
Data = Annotated[Path | None, typer.Option(help="As for `iava eval`.")]
Split = Annotated[str | None, typer.Option(help="Of the pocket scenes; by default tune.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many images.")]
Tuned = Annotated[str | None, typer.Option("--settings", help="IAVA's settings, as `iava tune iava` found them.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn, and of the intervals.")]


@with_settings
def auto(
    out: Out,
    model: Model = "pocket",
    bench: Bench = "pope",
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Can i and lambda be set from the data? Rules that find them against settings that are fixed."""
    from iava.bench.study.auto import auto as run

    _run(run, out, model, bench, data, split, limit, tuned, settings, seed)


@with_settings
def wording(
    out: Out,
    model: Model = "pocket",
    bench: Bench = "pope",
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    overlaps: Annotated[int, typer.Option(help="Images on which selections are compared.")] = 100,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """How much does the wording of the general instruction matter? Ten of them, and means of several."""
    from iava.bench.study.wording import wording as run

    if overlaps < 1:
        raise ValueError(f"overlaps is {overlaps}: it must be at least 1")
    _run(run, out, model, bench, data, split, limit, tuned, settings, seed, overlaps=overlaps)


@with_settings
def negatives(
    out: Out,
    model: Model = "pocket",
    bench: Bench = "pope",
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Is it the irrelevance? V* of irrelevant, relevant and random tokens, no image, noise, and the oracle's."""
    from iava.bench.study.negatives import negatives as run

    _run(run, out, model, bench, data, split, limit, tuned, settings, seed)


@with_settings
def candidates(
    out: Out,
    model: Model = "pocket",
    bench: Bench = "pope",
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    regions: Annotated[Path | None, typer.Option(help="study.json of `iava study regions`: its best heads.")] = None,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """What else could the second branch see, and what else could be subtracted? Many, on a split for tuning."""
    from iava.bench.study.candidates import best_heads
    from iava.bench.study.candidates import search as run
    from iava.jsonfiles import read_json

    best: Any = ()
    if regions is not None:
        content = read_json(regions)
        if not isinstance(content, dict) or "heads" not in content:
            raise ValueError(f"{regions} is no study.json of `iava study regions`")
        best = best_heads(content)
    _run(run, out, model, bench, data, split, limit, tuned, settings, seed, best=best)


def _run(
    run: Callable[..., Any],
    out: Path,
    model: str,
    bench: str,
    data: Path | None,
    split: str | None,
    limit: int | None,
    tuned: str | None,
    settings: dict[str, Any],
    seed: int,
    **more: Any,
) -> None:
    from iava.bench.runner import Plan
    from iava.cli import _load, pocket_scenes
    from iava.console import progress
    from iava.files import check_folder

    data = pocket_scenes(bench, data, model)
    split = split or ("tune" if data is None else None)
    plan = Plan(model, {"greedy": {}, "iava": _iava(settings, tuned)}, split, limit, seed, benchmark=bench, data=data)
    if not all(question.polar for question in plan.task.questions):
        raise ValueError(f"{bench} is not answered with yes or no alone: use pope, pope-aokvqa or pope-gqa")
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        run(lvlm, plan, out, advance, **more)
    _tell(out)


@with_settings
def regions(
    out: Out,
    model: Model = "pocket",
    split: Split = None,
    instances: Annotated[Path | None, typer.Option(help="Annotations as COCO has them, with boxes.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of their images.")] = None,
    limit: Limit = None,
    per_image: Annotated[int, typer.Option(help="Kinds of things asked about, an image at most.")] = 3,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Does the selection miss the answer's region? Selected tokens and attention against the boxes of what is asked."""
    from iava.bench.study.pictures import coco_pictures, pocket_pictures
    from iava.bench.study.regions import regions as run
    from iava.cli import _load
    from iava.console import progress
    from iava.files import check_folder

    if (instances is None) != (images is None):
        raise ValueError("--instances and --images belong together: give both, or neither for the pocket scenes")
    drawn: Any = {"limit": limit, "per_image": per_image, "seed": seed}
    chosen = _iava(settings, tuned)
    if instances is None or images is None:
        pictures = pocket_pictures(split or "tune", **drawn)
    else:
        if split is not None:
            raise ValueError("--split is of the pocket scenes: leave it out, or leave --instances out")
        pictures = coco_pictures(instances, images, **drawn)
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        run(lvlm, pictures, chosen, out, model=model, seed=seed, advance=advance)
    _tell(out)


def _iava(settings: dict[str, Any], tuned: str | None) -> dict[str, Any]:
    from iava.bench.tune import read_tuned

    # A study may look at the split that it was tuned on: it says which.
    given = read_tuned([Path(tuned)] if tuned else [], ["iava"], "")
    return settings_of(["iava"], given, settings)["iava"]


def _tell(out: Path) -> None:
    print((out / "study.md").read_text(encoding="utf-8"))
    print(f"table, numbers and plot: {out}/study.md, .json, .svg")
