"""The command `iava demo`: answers side by side, a measurement with controls, and a report of both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iava.cli.options import check_positive, load_model

if TYPE_CHECKING:
    from iava.benchmarks.task import Task
    from iava.lvlm.model import LVLM
    from iava.reporting.report import Example

SPLIT = "test"
SHOWN_FIRST = 3
"""Number of images that are shown in the order of the split."""
SHOWN_DIFFERING = 3
"""Number of images that are shown because greedy and IAVA answer differently."""
METHODS = ("greedy", "apc", "bias", "iava")


def demo(
    out: Annotated[Path, typer.Option(help="Output folder for the run and its report.")] = Path("runs/demo"),
    limit: Annotated[int, typer.Option(help="Number of images to measure on, at least 1.")] = 30,
) -> None:
    """Ask, measure and write a report with the model that ships with iava. Needs no download."""
    check_positive("limit", limit)
    from iava.benchmarks.sources.pocket import pocket
    from iava.cli.console import print_results, progress, side_by_side, terminal
    from iava.evaluation.plan import Plan
    from iava.evaluation.records import Records
    from iava.evaluation.runner import evaluate
    from iava.evaluation.runs import read_runs
    from iava.files import check_folder
    from iava.reporting.report import write_report
    from iava.reporting.verdicts import title

    check_folder(out)
    lvlm = load_model("pocket")
    task = pocket("pope", SPLIT, limit)
    plan = Plan("pocket", {name: {} for name in METHODS}, SPLIT, limit, tune_images=max(10, limit // 2))
    with progress() as advance:
        results = evaluate(lvlm, plan, out, advance)
    console = terminal()
    first = [_example(lvlm, task, image) for image in task.images[:SHOWN_FIRST]]
    console.print(f"The first {len(first)} images of the split {SPLIT!r}, greedy and IAVA:", style="bold")
    for shown in first:
        rows = [(question, truth, [greedy.text, ours.text]) for question, truth, greedy, ours in shown.questions]
        console.print(f"\n{shown.name}")
        console.print(side_by_side([title("greedy"), title("iava")], rows, plain=console.color_system is None))
    rest = task.images[SHOWN_FIRST:]
    differing = differing_images(Records(out / "records.jsonl").rows, rest)
    chosen = [_example(lvlm, task, image) for image in differing[:SHOWN_DIFFERING]]
    groups = [
        ("The first images", f"The first images of the split {SPLIT}, without selection.", first),
        (
            "Where the answers differ",
            f"Selected because greedy and IAVA answer a measured question differently: {len(chosen)} of "
            f"{len(differing)} such images among the other {len(rest)}. They do not show how often this happens.",
            chosen,
        ),
    ]
    page, _, _ = write_report(out / "report.html", read_runs([out]), groups)
    print_results(results, out)
    console.print(f"report: {page}", markup=False)


def differing_images(records: Sequence[Mapping[str, Any]], images: Sequence[str]) -> list[str]:
    """Returns the images with a question that greedy and IAVA answered differently, in the given order."""
    parsed = {(r["image"], r["question"], r["method"]): r["parsed"] for r in records}
    differing = {
        image
        for (image, question, method), answer in parsed.items()
        if method == "iava" and answer != parsed[image, question, "greedy"]
    }
    return [image for image in images if image in differing]


def _example(lvlm: "LVLM", task: "Task", image: str) -> "Example":
    """Answers the adversarial questions about an image, and describes it, by greedy decoding and by IAVA."""
    from iava.benchmarks.chair import POCKET_PROMPT
    from iava.reporting.report import Example

    picture = task.open_image(image)
    asked = [question for question in task.questions if question.image == image and question.category == "adversarial"]
    wordings = [*(question.question for question in asked), POCKET_PROMPT]
    truths = [*(question.truth for question in asked), None]
    greedy, ours = (
        lvlm.ask_many(picture, wordings, method=method, explain=True, max_new_tokens=48)
        for method in ("greedy", "iava")
    )
    return Example(image, picture, list(zip(wordings, truths, greedy, ours, strict=True)))
