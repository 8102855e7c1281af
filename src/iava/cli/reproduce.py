"""`iava reproduce`: the paper's whole comparison."""

from pathlib import Path
from typing import Annotated, Any

import typer


def reproduce(
    model: Annotated[str, typer.Option(help="A model id on the Hugging Face Hub, a folder, or pocket.")],
    data: Annotated[Path, typer.Option(help="Holds a folder for each data set (iava data check says which).")],
    out: Annotated[Path, typer.Option(help="The runs' folder; the same again goes on with them.")] = Path(
        "runs/reproduce"
    ),
    tables: Annotated[str, typer.Option(help="Of mme, pope (its data sets that are there), textvqa.")] = (
        "mme,pope,textvqa"
    ),
    limit: Annotated[int | None, typer.Option(help="Only the first so many images of each data set.")] = None,
    seed: Annotated[int, typer.Option(help="Of methods that draw tokens, and of the intervals.")] = 42,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask about a few images, say what all would take, and write nothing.")
    ] = False,
) -> None:
    """Measures what the paper compares, and the controls; can be stopped and called again."""
    from iava.cli.app import _load
    from iava.cli.console import progress, terminal
    from iava.evaluation.reproduce import estimate, plans
    from iava.evaluation.reproduce import reproduce as run
    from iava.files import check_folder

    wanted = plans(model, data, [table.strip() for table in tables.split(",")], limit=limit, seed=seed)
    if not dry_run:
        check_folder(out)
    lvlm = _load(model)
    console = terminal()
    with progress() as advance:
        if dry_run:
            found = [estimate(lvlm, plan, advance) for plan in wanted]
        else:
            folders = run(lvlm, wanted, out, advance)
    if dry_run:
        console.print(_table(found))
        console.print(f"methods: {', '.join(wanted[0].methods)}", markup=False)
        return
    from iava.evaluation.runs import read_runs
    from iava.reporting.renderers import console_table
    from iava.reporting.report import write_report
    from iava.reporting.verdicts import verdicts

    runs = read_runs(folders)
    for one in runs:
        console.print(console_table(one.rows))
        for sentence in verdicts(one.rows):
            console.print(sentence, style="bold", markup=False)
    page, _, _ = write_report(out / "report.html", runs)
    print(f"report: {page}")


def _table(found: Any) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("data set", "images", "questions", "answers", "time", "memory"):
        table.add_column(heading, justify="left" if heading == "data set" else "right")
    for one in found:
        numbers = (f"{number:,}" for number in (one.images, one.questions, one.answers))
        table.add_row(one.benchmark, *numbers, _time(one.seconds), f"{one.memory / 2**30:.2f} GiB")
    if len(found) > 1:
        sums = (f"{sum(getattr(one, name) for one in found):,}" for name in ("images", "questions", "answers"))
        most = max(one.memory for one in found)
        table.add_row("together", *sums, _time(sum(one.seconds for one in found)), f"{most / 2**30:.2f} GiB")
    return table


def _time(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
