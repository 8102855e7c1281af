"""`iava demo`: a few answers side by side, a measurement with its controls, and a report of both."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from iava.benchmarks.pocket import CAPTION_PROMPT, pocket
from iava.benchmarks.task import Question
from iava.cli.console import progress, side_by_side, terminal
from iava.evaluation.records import Record, Records
from iava.evaluation.runner import Plan, evaluate
from iava.evaluation.runs import read_runs
from iava.lvlm.model import LVLM
from iava.reporting.renderers import console_table
from iava.reporting.report import Example, write_report
from iava.reporting.verdicts import title, verdicts

SPLIT = "test"
FIRST = 3  # images that are shown as they come
CHOSEN = 3  # images that are shown because answers differ
METHODS = ("greedy", "apc", "bias", "iava")


def run(lvlm: LVLM, folder: Path, limit: int, *, model: str = "pocket") -> None:
    """Measures, asks and writes `folder`/report.html, telling the terminal about it.

    Args:
        lvlm: the model.
        folder: where records, results and report go; a run that was stopped is taken up.
        limit: images to measure on.
        model: the model's name.

    Raises:
        IavaError: if the folder holds another run or cannot be written.
    """
    console = terminal()
    plain = console.color_system is None
    task = pocket("pope", SPLIT, limit)
    images = task.images

    def example(image: str) -> Example:
        return _asked(lvlm, task.open_image(image), [q for q in task.questions if q.image == image], image)

    # First, because it refuses a folder that holds another run.
    plan = Plan(model, {name: {} for name in METHODS}, SPLIT, limit, tune_images=max(10, limit // 2))
    with progress() as advance:
        results = evaluate(lvlm, plan, folder, advance)
    first = [example(image) for image in images[:FIRST]]
    console.print(f"The first {len(first)} pictures of the split {SPLIT!r}, greedy and IAVA:", style="bold")
    for shown in first:
        rows = [(question, truth, [greedy.text, ours.text]) for question, truth, greedy, ours in shown.questions]
        console.print(f"\n{shown.name}")
        console.print(side_by_side([title("greedy"), title("iava")], rows, plain))
    differing = _where_they_differ(Records(folder / "records.jsonl").rows, images[FIRST:])
    chosen = [example(image) for image in differing[:CHOSEN]]
    groups = [
        ("The first pictures, as they come", f"The first pictures of the split {SPLIT}; nothing was picked.", first),
        (
            "Where the answers differ",
            f"Picked because greedy and IAVA disagree there on a measured question: {len(chosen)} of "
            f"{len(differing)} such pictures among the other {len(images[FIRST:])}. They say nothing about how often.",
            chosen,
        ),
    ]
    page, _, _ = write_report(folder / "report.html", read_runs([folder]), groups)
    console.print(console_table(results["rows"]))
    console.print(f"Report: {page}", markup=False)
    for sentence in verdicts(results["rows"]):
        console.print(sentence, style="bold", markup=False)


def _asked(lvlm: LVLM, picture: Image.Image, questions: Sequence[Question], image: str) -> Example:
    """The adversarial questions about an image and its caption, by greedy decoding and by IAVA."""
    adversarial = [question for question in questions if question.category == "adversarial"]
    wordings = [question.question for question in adversarial]
    truths: list[str | None] = [question.truth for question in adversarial]
    greedy, ours = (
        lvlm.ask_many(picture, [*wordings, CAPTION_PROMPT], method=method, explain=True, max_new_tokens=48)
        for method in ("greedy", "iava")
    )
    return Example(image, picture, list(zip([*wordings, CAPTION_PROMPT], [*truths, None], greedy, ours, strict=True)))


def _where_they_differ(records: Sequence[Record], images: Sequence[str]) -> list[str]:
    """Those of the images about which greedy and IAVA answered a question differently, in their order."""
    parsed = {(r["image"], r["question"], r["method"]): r["parsed"] for r in records}
    differing = {
        image
        for (image, question, method), answer in parsed.items()
        if method == "iava" and answer != parsed[image, question, "greedy"]
    }
    return [image for image in images if image in differing]
