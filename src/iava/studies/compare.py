"""Methods side by side on the same yes-no questions, and what every study leaves in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, write_json
from iava.evaluation.runner import Advance, evaluate
from iava.files import write_text
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.metrics.parts import Record, group_of
from iava.metrics.results import Row
from iava.metrics.shift import beyond_bias
from iava.metrics.stats import paired_difference
from iava.reporting.formatting import number, pair
from iava.reporting.plots import estimates, panels, save
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Line, Table, estimate
from iava.reporting.verdicts import title
from iava.studies.ablate import selected_share


def compare(
    lvlm: LVLM,
    plan: Plan,
    folder: Path,
    advance: Advance,
    *,
    reference: str,
    heading: str,
    others: Sequence[Method] = (),
) -> tuple[dict[str, Any], str]:
    """Measures methods, or goes on, each against greedy decoding and a reference.

    Args:
        plan: of "greedy" and whatever else has a command-line name.
        reference: a method's name.
        heading: of the table.
        others: methods without a command-line name.

    Returns:
        What `iava.evaluation.runner.evaluate` returns, with "outcomes", see `outcomes`; and the table in Markdown.

    Raises:
        IavaError: as `evaluate`.
    """
    results = evaluate(lvlm, plan, folder, advance, others=others)
    rows = [row for row in results["rows"] if row["category"] == "overall"]
    references = ("greedy", reference)
    found = outcomes(rows, Records(folder / "records.jsonl").rows, references, seed=plan.seed)
    note = (
        f"{plan.benchmark}, {plan.task.split}, {len(plan.task.images):,} images, {found[0]['n']:,} questions, model "
        f"{plan.model}, seed {plan.seed}. Percent and points, 95 % intervals over images. Beyond a bias: accuracy "
        "above what greedy decoding with a constant bias reaches at the same yes-ratio."
    )
    headings = ["Accuracy", *(f"vs {title(name)}" for name in references), "Beyond a bias", "AUC", "Yes-ratio"]
    lines = [_line(one, references) for one in found]
    told = markdown(Table(heading, [*headings, "Tokens selected"], lines, note))
    return results | {"outcomes": found}, told


def outcomes(
    rows: Sequence[Row], records: Sequence[Record], references: Sequence[str], *, seed: int
) -> list[dict[str, Any]]:
    """How each method differs from the references.

    Args:
        rows: one a method, see `iava.metrics.results.rows_of`.
        records: of all of them, greedy among them; yes-no questions only.
        references: methods with which each other one is compared.

    Returns:
        For each method: method, n, metrics, intervals and settings of its row; "against": reference -> difference of
        accuracy and its 95 % interval over images; "beyond_bias": see `iava.metrics.shift.beyond_bias`, with interval;
        "selected": mean share of the image's tokens, with interval.
    """
    answers: dict[str, dict[str, Record]] = {row["method"]: {} for row in rows}
    # In the order of images, as everywhere: two calls draw the same ones.
    for record in sorted(records, key=lambda record: (record["image"], record["id"])):
        if "error" not in record:
            answers[record["method"]][record["id"]] = record
    found = []
    for row in rows:
        ours = answers[row["method"]]
        against = {name: _difference(ours, answers[name], seed) for name in references if name != row["method"]}
        found.append(
            {key: row[key] for key in ("method", "n", "metrics", "intervals", "settings")}
            | {"against": against, "beyond_bias": _beyond(ours, answers["greedy"], seed)}
            | {"selected": selected_share(list(ours.values()), seed=seed)}
        )
    return found


def _difference(ours: Mapping[str, Record], theirs: Mapping[str, Record], seed: int) -> tuple[float, Any]:
    both = [id for id in ours if id in theirs]
    mine, other = (np.array([[one[id]["parsed"] == one[id]["truth"], 1.0] for id in both]) for one in (ours, theirs))
    groups = [group_of(ours[id]) for id in both]
    return paired_difference(mine, other, groups, lambda s: s[:, 0] / s[:, 1], seed=seed)


def _beyond(ours: Mapping[str, Record], greedy: Mapping[str, Record], seed: int) -> tuple[float, Any]:
    both = [(record, greedy[id]) for id, record in ours.items() if id in greedy]
    return beyond_bias(
        [plain["yes"] - plain["no"] for _, plain in both],
        [record["truth"] for record, _ in both],
        [record["parsed"] == "yes" for record, _ in both],
        [record["parsed"] == record["truth"] for record, _ in both],
        [group_of(record) for record, _ in both],
        seed=seed,
    )


def _line(one: Mapping[str, Any], references: Sequence[str]) -> Line:
    signed = [one["against"].get(name) for name in references]
    signed.append(one["beyond_bias"] if one["method"] != "greedy" else None)
    differences = [Cell(number("", d[0], sign=True), pair("", d[1], sign=True)) if d else Cell() for d in signed]
    share, limits = one["selected"]
    chosen = Cell(number("", share), pair("", limits) if limits else "")
    row = dict(one)
    cells = [estimate(row, "accuracy"), *differences, estimate(row, "auc"), estimate(row, "yes_ratio"), chosen]
    return Line(title(one["method"]), cells)


def drawing(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Of each method's accuracy what it adds to greedy decoding's, and to that of a constant bias."""
    others = [one for one in found if one["method"] != "greedy"]
    figure, axes = panels(1, 2, width=4.6, height=3.6)
    added = {
        "Accuracy against greedy, points": [one["against"]["greedy"] for one in others],
        "Accuracy beyond a constant bias, points": [one["beyond_bias"] for one in others],
    }
    for panel, (heading, differences) in zip(axes, added.items(), strict=True):
        labels = [title(one["method"]) for one in others]
        estimates(
            panel, *zip(*differences, strict=True), labels=labels, reference=("no difference", 0.0, None), joined=False
        )
        panel.set_title(heading)
    return figure


def leave(folder: Path, found: Mapping[str, Any], told: str, figure: Figure) -> dict[str, Any]:
    """Writes results.json, table.md (ending with the command that made it) and plot.png, and gives back what was found.

    Args:
        found: ready for JSON, with the run's "manifest".
    """
    write_json(folder / "results.json", dict(found))
    write_text(folder / "table.md", f"{told}\n`{found['manifest']['command']}`\n")
    save(figure, folder / "plot.png")
    return dict(found)
