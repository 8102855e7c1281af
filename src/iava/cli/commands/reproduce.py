"""The command `iava reproduce`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.options import Limit, PresetOption, Seed, load_model, with_options
from iava.errors import IavaError


@with_options
def reproduce(
    model: Annotated[str, typer.Option(help="Model to load: a Hugging Face Hub id, a local folder, or pocket.")],
    data: Annotated[Path, typer.Option(help="Folder with one subfolder per data set; `iava data check` lists them.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Output folder, with a run per decoding mode and data set. The same command resumes interrupted runs."
        ),
    ] = Path("runs/reproduce"),
    tables: Annotated[
        str,
        typer.Option(help="Tables of the paper, separated by commas: mme, pope (its data sets in --data), textvqa."),
    ] = "mme,pope,textvqa",
    decoding: Annotated[
        str,
        typer.Option(
            help="greedy, sampling, or both: each method beside controls of the same mode. The paper's baseline "
            "probably drew its tokens."
        ),
    ] = "both",
    preset: PresetOption = None,
    limit: Limit = None,
    seed: Seed = 42,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few images, estimate the whole, and write nothing.")
    ] = False,
    *,
    loading: dict[str, Any],
) -> None:
    """Measure the paper's comparison together with controls. Interrupted runs resume."""
    from iava.cli.console import progress, terminal
    from iava.evaluation.presets import check_preset
    from iava.evaluation.reproduce import CONTROLS, PAPERS_MODE, estimate, plans
    from iava.evaluation.reproduce import reproduce as run
    from iava.files import check_folder
    from iava.lvlm.loading import model_type

    if decoding not in ("both", *CONTROLS):
        raise IavaError(f"unknown decoding mode {decoding!r}: use both, {', '.join(CONTROLS)}")
    check_preset(preset)
    wanted = plans(
        model,
        data,
        [table.strip() for table in tables.split(",")],
        modes=tuple(CONTROLS) if decoding == "both" else (decoding,),
        limit=limit,
        seed=seed,
        published=None if preset is None else model_type(model, **loading),
    )
    if not dry_run:
        check_folder(out)
    lvlm = load_model(model, **loading)
    console = terminal()
    if dry_run:
        with progress() as advance:
            found = [estimate(lvlm, plan, advance) for plan in wanted]
        console.print(_comparison_table(found))
        for mode in dict.fromkeys(one.mode for one in found):
            methods = next(plan.methods for plan, one in zip(wanted, found, strict=True) if one.mode == mode)
            console.print(f"{mode}: {', '.join(methods)}", markup=False)
        console.print(PAPERS_MODE, markup=False)
        return
    from iava.evaluation.runs import read_runs
    from iava.reporting.renderers import console_table
    from iava.reporting.report import write_report
    from iava.reporting.verdicts import verdicts

    with progress() as advance:
        folders = run(lvlm, wanted, out, advance)
    runs = read_runs(folders)
    for one in runs:
        console.print(one.name, style="bold", markup=False)
        console.print(console_table(one.rows))
        for sentence in verdicts(one.rows):
            console.print(sentence, style="bold", markup=False)
    console.print(PAPERS_MODE, markup=False)
    page, _, _ = write_report(out / "report.html", runs)
    print(f"report: {page}")


def _comparison_table(found: Any) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("data set", "decoding", "images", "questions", "answers", "time", "memory"):
        table.add_column(heading, justify="left" if heading in ("data set", "decoding") else "right")
    for one in found:
        numbers = (f"{number:,}" for number in (one.images, one.questions, one.answers))
        table.add_row(one.benchmark, one.mode, *numbers, duration(one.seconds), f"{one.memory / 2**30:.2f} GiB")
    if len(found) > 1:
        sums = (f"{sum(getattr(one, name) for one in found):,}" for name in ("images", "questions", "answers"))
        most = max(one.memory for one in found)
        table.add_row("together", "", *sums, duration(sum(one.seconds for one in found)), f"{most / 2**30:.2f} GiB")
    return table


def duration(seconds: float) -> str:
    """Returns a time in seconds below two minutes, else in minutes or hours."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
