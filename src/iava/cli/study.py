"""The command `iava study`: the paper's open questions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.settings import settings_of, with_settings
from iava.errors import IavaError

STUDIES = ("auto", "wording", "regions", "negatives", "centred")


@with_settings
def study(
    what: Annotated[
        str,
        typer.Argument(
            help="auto: can i and lambda be set from the data? wording: does the general instruction's matter? "
            "regions: does the selection miss the answer's region? negatives: is it the irrelevance? "
            "centred: where does IAVA+'s gain come from?",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where it goes; the same again goes on with it.", show_default=False)],
    model: Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")] = "pocket",
    bench: Annotated[str, typer.Option(help="pope, pope-aokvqa or pope-gqa.")] = "pope",
    data: Annotated[Path | None, typer.Option(help="As for `iava eval`.")] = None,
    split: Annotated[str | None, typer.Option(help="Of the pocket scenes; by default tune.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    instances: Annotated[
        Path | None, typer.Option(help="For regions: annotations as COCO has them, with boxes; in place of --data.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of their images.")] = None,
    tuned: Annotated[
        str | None, typer.Option("--settings", help="IAVA's settings, as `iava tune iava` found them.")
    ] = None,
    *,
    settings: dict[str, Any],
    seed: Annotated[int, typer.Option(help="Of what is drawn, and of the intervals.")] = 42,
) -> None:
    """Answers one of the paper's open questions with numbers; can be stopped and called again."""
    if what not in STUDIES:
        raise IavaError(f"unknown study {what!r}: use one of {', '.join(STUDIES)}")
    if (instances is None) != (images is None):
        raise IavaError("--instances and --images belong together: give both, or neither")
    if instances is not None and (what != "regions" or data is not None or split is not None):
        raise IavaError("--instances is for regions alone, and takes the place of --data and --split: leave those out")
    from iava.cli.app import _load, pocket_scenes
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.studies.auto import auto
    from iava.studies.centred import centred_study
    from iava.studies.negatives import negatives
    from iava.studies.regions import asked, coco_task, regions
    from iava.studies.wording import wording

    # A study may look at the split that the settings were tuned on: it says which.
    given = read_tuned([Path(tuned)] if tuned else [], ["iava"], "")
    iava = settings_of(["iava"], given, settings)["iava"]
    if instances is not None and images is not None:
        task = coco_task(instances, images, limit=limit, seed=seed)
    else:
        data = pocket_scenes(bench, data, model)
        split = split or ("tune" if data is None else None)
        plan = Plan(model, {"greedy": {}, "iava": iava}, split, limit, seed, benchmark=bench, data=data)
        task = plan.task
        if not all(question.is_yes_no for question in task.questions):
            raise IavaError(f"{bench} is not answered with yes or no alone: use pope, pope-aokvqa or pope-gqa")
    if what == "regions":
        asked(task)
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        if what == "regions":
            regions(lvlm, task, iava, out, advance, model=model, seed=seed)
        else:
            asks = {"auto": auto, "wording": wording, "negatives": negatives, "centred": centred_study}
            asks[what](lvlm, plan, out, advance)
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"{out}: results.json, table.md, plot.png" + (", samples.png" if what == "regions" else ""))
