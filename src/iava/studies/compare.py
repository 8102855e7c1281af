"""Several methods on the same yes-no questions, and the files that every study writes."""

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
from iava.metrics.stats import Interval, bootstrap, paired_difference
from iava.reporting.plots import panels, plot_estimates, save_figure
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Table, TableRow, difference_cell, metric_cell, value_cell
from iava.reporting.verdicts import title

SELECTED = "Tokens selected"
"""The column heading of the mean share of selected image tokens."""


def compare_methods(
    lvlm: LVLM,
    plan: Plan,
    folder: Path,
    advance: Advance,
    *,
    reference: str,
    heading: str,
    variants: Sequence[Method] = (),
) -> tuple[dict[str, Any], str]:
    """Measures methods, each against greedy decoding and a reference. A stopped measurement continues.

    Args:
        plan: of "greedy" and further methods with a command-line name.
        reference: the name of the reference method.
        heading: the title of the table.
        variants: bound methods without a command-line name.

    Returns:
        The results of `iava.evaluation.runner.evaluate` with "outcomes" (see `method_outcomes`), and a Markdown table.

    Raises:
        IavaError: see `evaluate`.
    """
    results = evaluate(lvlm, plan, folder, advance, others=variants)
    rows = [row for row in results["rows"] if row["category"] == "overall"]
    references = ("greedy", reference)
    outcomes = method_outcomes(rows, Records(folder / "records.jsonl").rows, references, seed=plan.seed)
    note = (
        f"{plan.benchmark}, {plan.task.split}, {len(plan.task.images):,} images, {outcomes[0]['n']:,} questions, model "
        f"{plan.model}, seed {plan.seed}. Percent and percentage points, with 95 % intervals over images. Beyond bias: "
        "accuracy minus that of greedy decoding with a constant bias at the same yes-ratio."
    )
    headings = ["Accuracy", *(f"vs {title(name)}" for name in references), "Beyond bias", "AUC", "Yes-ratio", SELECTED]
    table_rows = [_outcome_row(outcome, references) for outcome in outcomes]
    return results | {"outcomes": outcomes}, markdown(Table(heading, headings, table_rows, note))


def method_outcomes(
    rows: Sequence[Row], records: Sequence[Record], references: Sequence[str], *, seed: int
) -> list[dict[str, Any]]:
    """The difference of each method from the references.

    Args:
        rows: one for each method, see `iava.metrics.results.rows_of`.
        records: yes-no answers of all methods, including greedy decoding.
        references: the methods that each other method is compared with.
        seed: bootstrap seed.

    Returns:
        A dict for each method with "method", "n", "metrics", "intervals" and "settings" of its row; "against", which
        maps a reference to the difference of accuracy and its 95 % interval over images; "beyond_bias", see
        `iava.metrics.shift.beyond_bias`; and "selected", see `selected_share`.
    """
    answers: dict[str, dict[str, Record]] = {row["method"]: {} for row in rows}
    # Sorted by image, so that equal records give equal bootstrap draws.
    for record in sorted(records, key=lambda record: (record["image"], record["id"])):
        if "error" not in record:
            answers[record["method"]][record["id"]] = record
    outcomes = []
    for row in rows:
        own = answers[row["method"]]
        against = {name: _accuracy_difference(own, answers[name], seed) for name in references if name != row["method"]}
        outcomes.append(
            {key: row[key] for key in ("method", "n", "metrics", "intervals", "settings")}
            | {"against": against, "beyond_bias": _beyond_bias(own, answers["greedy"], seed)}
            | {"selected": selected_share(list(own.values()), seed=seed)}
        )
    return outcomes


def _accuracy_difference(
    own: Mapping[str, Record], other: Mapping[str, Record], seed: int
) -> tuple[float, Interval | None]:
    shared = [id for id in own if id in other]
    first, second = (np.array([[one[id]["parsed"] == one[id]["truth"], 1.0] for id in shared]) for one in (own, other))
    return paired_difference(first, second, [group_of(own[id]) for id in shared], _mean, seed=seed)


def _beyond_bias(own: Mapping[str, Record], greedy: Mapping[str, Record], seed: int) -> tuple[float, Any]:
    pairs = [(record, greedy[id]) for id, record in own.items() if id in greedy]
    return beyond_bias(
        [reference["yes"] - reference["no"] for _, reference in pairs],
        [record["truth"] for record, _ in pairs],
        [record["parsed"] == "yes" for record, _ in pairs],
        [record["parsed"] == record["truth"] for record, _ in pairs],
        [group_of(record) for record, _ in pairs],
        seed=seed,
    )


def selected_share(records: Sequence[Record], *, seed: int) -> tuple[float | None, Interval | None]:
    """The mean share of selected image tokens and its 95 % interval over images. None if no record has it."""
    selecting = [record for record in records if "selected" in record]
    if not selecting:
        return None, None
    values = [record["selected"] for record in selecting]
    return mean_and_interval(values, [group_of(record) for record in selecting], seed=seed)


def mean_and_interval(values: Sequence[float], groups: Sequence[str], *, seed: int) -> tuple[float, Interval]:
    """The mean of values and its 95 % bootstrap interval over groups."""
    tallies = np.stack([values, np.ones(len(values))], axis=1)
    return float(np.mean(values)), bootstrap(tallies, groups, _mean, seed=seed)


def _mean(sums: np.ndarray) -> np.ndarray:
    """(..., 2) sums of values and counts -> (...) means."""
    return sums[..., 0] / sums[..., 1]


def _outcome_row(outcome: Mapping[str, Any], references: Sequence[str]) -> TableRow:
    differences = [outcome["against"].get(name) for name in references]
    differences.append(outcome["beyond_bias"] if outcome["method"] != "greedy" else None)
    cells = [
        metric_cell(dict(outcome), "accuracy"),
        *(difference_cell("accuracy", *difference) if difference else Cell() for difference in differences),
        metric_cell(dict(outcome), "auc"),
        metric_cell(dict(outcome), "yes_ratio"),
        value_cell("selected", *outcome["selected"]),
    ]
    return TableRow(title(outcome["method"]), cells)


def difference_figure(outcomes: Sequence[Mapping[str, Any]]) -> Figure:
    """Each method's accuracy minus that of greedy decoding, and minus that of a constant bias."""
    others = [outcome for outcome in outcomes if outcome["method"] != "greedy"]
    figure, axes = panels(1, 2, width=4.6, height=3.6)
    differences = {
        "Accuracy minus greedy, points": [outcome["against"]["greedy"] for outcome in others],
        "Accuracy beyond a constant bias, points": [outcome["beyond_bias"] for outcome in others],
    }
    for panel, (heading, values) in zip(axes, differences.items(), strict=True):
        labels = [title(outcome["method"]) for outcome in others]
        zero = ("no difference", 0.0, None)
        plot_estimates(panel, *zip(*values, strict=True), labels=labels, reference=zero, joined=False)
        panel.set_title(heading)
    return figure


def write_study(folder: Path, results: Mapping[str, Any], table: str, figure: Figure) -> dict[str, Any]:
    """Writes results.json, table.md and plot.png. The table ends with the command that made it.

    Args:
        results: ready for JSON, with the run's "manifest".
        table: Markdown.

    Returns:
        The results.
    """
    write_json(folder / "results.json", dict(results))
    write_text(folder / "table.md", f"{table}\n`{results['manifest']['command']}`\n")
    save_figure(figure, folder / "plot.png")
    return dict(results)
