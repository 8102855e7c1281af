"""The command `iava study`."""

from pathlib import Path
from typing import Annotated, Any

import typer

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
from iava.cli.settings import settings_of
from iava.errors import IavaError

STUDIES = ("auto", "wording", "regions", "negatives", "centred", "evidence")


@with_options
def study(
    what: Annotated[
        str,
        typer.Argument(
            help="auto: can i and lambda be set from the data? wording: does the wording of the general instruction "
            "matter? regions: does the selection avoid the region of the answer? negatives: does it matter that the "
            "negative image holds irrelevant tokens? centred: where does IAVA+'s gain come from? evidence: which "
            "view of the image is worth contrasting with?",
            show_default=False,
        ),
    ],
    out: RunFolder,
    model: Model = "pocket",
    bench: Annotated[str, typer.Option(help="Benchmark: pope, pope-aokvqa or pope-gqa.")] = "pope",
    data: Data = None,
    split: TuneSplit = None,
    limit: Limit = None,
    instances: Annotated[
        Path | None, typer.Option(help="COCO instances JSON with boxes, for regions; replaces --data.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images that --instances annotates.")] = None,
    tuned: Tuned = None,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    seed: Seed = 42,
) -> None:
    """Answer one of the paper's open questions with numbers. An interrupted study resumes."""
    if what not in STUDIES:
        raise IavaError(f"unknown study {what!r}: use one of {', '.join(STUDIES)}")
    if (instances is None) != (images is None):
        raise IavaError("--instances and --images belong together: give both, or neither")
    if instances is not None and (what != "regions" or data is not None or split is not None):
        raise IavaError("--instances is for regions only and replaces --data and --split: leave those out")
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.studies.auto import run_auto_study
    from iava.studies.centred import run_centred_study
    from iava.studies.evidence import run_evidence_study
    from iava.studies.negatives import run_negatives_study
    from iava.studies.regions import coco_task, region_questions, run_regions_study
    from iava.studies.wording import run_wording_study

    # A study may run on the split that the settings were tuned on: its table names the split.
    given = read_tuned(tuned_files(tuned), ["iava"], "")
    iava = settings_of(["iava"], given, settings)["iava"]
    if instances is not None and images is not None:
        task = coco_task(instances, images, limit=limit, seed=seed)
    else:
        data = data_folder(bench, data, model)
        split = split or ("tune" if data is None else None)
        plan = Plan(model, {"greedy": {}, "iava": iava}, split, limit, seed, benchmark=bench, data=data)
        task = plan.task
        if not all(question.is_yes_no for question in task.questions):
            raise IavaError(f"not every question of {bench} asks for yes or no: use pope, pope-aokvqa or pope-gqa")
    if what == "regions":
        region_questions(task)
    check_folder(out)
    lvlm = load_model(model, **loading)
    with progress() as advance:
        if what == "regions":
            run_regions_study(lvlm, task, iava, out, advance, model=model, seed=seed)
        else:
            studies = {
                "auto": run_auto_study,
                "wording": run_wording_study,
                "negatives": run_negatives_study,
                "centred": run_centred_study,
                "evidence": run_evidence_study,
            }
            studies[what](lvlm, plan, out, advance)
    print((out / "table.md").read_text(encoding="utf-8"))
    print(f"{out}: results.json, table.md, plot.png" + (", samples.png" if what == "regions" else ""))
