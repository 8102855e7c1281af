"""From records to numbers: metrics with intervals, and every method against the best control."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from iava.bench.pope import CATEGORIES, COUNTS, auc, rates, tally
from iava.bench.records import Record
from iava.bench.stats import bootstrap_auc, by_cluster, holm, interval, mcnemar, paired_difference, resampled

CONTROLS = ("greedy", "sample", "apc", "bias")
"""Methods that see nothing but the model's own logits: what a method must beat to count as better."""
TITLES = {"greedy": "greedy", "sample": "sampling", "apc": "APC-only", "bias": "constant bias", "iava": "IAVA"}

Row = dict[str, Any]


def rows_of(records: Sequence[Record], *, settings: Mapping[str, Mapping[str, Any]], seed: int) -> list[Row]:
    """The results table, a row for each split, category (and "overall") and method.

    Args:
        records: what the runner wrote; errors are counted and left out.
        settings: of each method, in the order of the rows.
        seed: of the bootstrap.

    Returns:
        Rows with benchmark, split, category, method, n, errors, metrics (fractions of 1; auc is None where one truth is
        missing), intervals (95 %, [low, high]), seconds a question, settings, and comparison: None for the best
        control, else control, difference of accuracies, interval, p (exact McNemar) and p_holm.
    """
    # The order in which questions were asked must not show in a bootstrap.
    ordered = sorted(records, key=lambda record: (record["image"], record["id"]))
    rows: list[Row] = []
    for split in dict.fromkeys(record["split"] for record in ordered):
        control = None
        for category in ("overall", *CATEGORIES):
            chosen = {
                method: [r for r in ordered if _belongs(r, split, category, method) and "error" not in r]
                for method in settings
            }
            errors = {method: sum(_belongs(r, split, category, method) for r in ordered) for method in settings}
            table = [
                _row(chosen[method], seed)
                | {"split": split, "category": category, "method": method, "settings": dict(settings[method])}
                | {"errors": errors[method] - len(chosen[method])}
                for method in settings
                if chosen[method]
            ]
            if category == "overall":
                control = best_control(table)
            _compare(table, chosen, control, seed)
            rows += table
    return [{"benchmark": "pope", **row} for row in rows]


def _belongs(record: Record, split: str, category: str, method: str) -> bool:
    return record["split"] == split and record["method"] == method and category in ("overall", record["category"])


def _row(records: Sequence[Record], seed: int) -> Row:
    clusters = [record["image"] for record in records]
    truths = [record["truth"] for record in records]
    margins = [record["yes"] - record["no"] for record in records]
    counts = tally(truths, [record["parsed"] for record in records])
    draws = rates(resampled(by_cluster(counts, clusters), seed=seed))
    metrics: dict[str, float | None] = {name: float(value) for name, value in rates(counts.sum(axis=0)).items()}
    intervals = {name: interval(values) for name, values in draws.items()}
    metrics["auc"] = auc(margins, truths)
    if metrics["auc"] is not None:
        intervals["auc"] = bootstrap_auc(margins, [truth == "yes" for truth in truths], clusters, seed=seed)
    seconds = {(record["image"], record["question"]): record["seconds"] for record in records}
    return {
        "n": int(counts[:, COUNTS.index("n")].sum()),
        "metrics": metrics,
        "intervals": {name: list(limits) for name, limits in intervals.items()},
        "seconds": float(np.mean(list(seconds.values()))),
        "comparison": None,
    }


def best_control(rows: Sequence[Row]) -> str | None:
    """The control with the highest overall accuracy (equal: the first); None if there is no control."""
    controls = [row for row in rows if row["category"] == "overall" and row["method"] in CONTROLS]
    return max(controls, key=lambda row: row["metrics"]["accuracy"])["method"] if controls else None


def _compare(table: list[Row], records: Mapping[str, Sequence[Record]], control: str | None, seed: int) -> None:
    if control is None:
        return
    theirs = {record["id"]: record for record in records[control]}
    compared = []
    for row in table:
        both = [record for record in records[row["method"]] if record["id"] in theirs]
        if row["method"] == control or not both:
            continue
        right = np.array([(_right(r), _right(theirs[r["id"]])) for r in both])
        difference, limits = paired_difference(right[:, 0], right[:, 1], [r["image"] for r in both], seed=seed)
        # A positive stands in all three categories: as evidence it counts once.
        once = list({(r["image"], r["question"]): number for number, r in enumerate(both)}.values())
        row["comparison"] = {
            "control": control,
            "difference": difference,
            "interval": list(limits),
            "p": mcnemar(right[once, 0], right[once, 1]),
        }
        compared.append(row["comparison"])
    for comparison, p in zip(compared, holm([c["p"] for c in compared]), strict=True):
        comparison["p_holm"] = p


def _right(record: Record) -> bool:
    return record["parsed"] == record["truth"]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One sentence for each method that is no control: what the overall row says, for better or worse."""
    ours = [row for row in rows if row["category"] == "overall" and row["method"] not in CONTROLS]
    return [_verdict(row) for row in ours]


def _verdict(row: Row) -> str:
    name, comparison = title(row["method"]), row["comparison"]
    if comparison is None:
        return f"{name} was run without a control, so nothing can be said about whether it helps."
    difference = 100 * comparison["difference"]
    low, high = (100 * limit for limit in comparison["interval"])
    control = f"the best control ({title(comparison['control'])})"
    limits = f"95 % interval [{low:+.1f}, {high:+.1f}]"
    if low > 0:
        outcome = "it helps here."
    elif high < 0:
        outcome = "it does not help here."
    else:
        outcome = "no difference is shown here."
    if f"{abs(difference):.1f}" == "0.0":
        return f"{name} is as accurate as {control}, {limits}: {outcome}"
    side = "above" if difference > 0 else "below"
    return f"{name} is {abs(difference):.1f} points {side} {control}, {limits}: {outcome}"


def is_control(method: str) -> bool:
    """Whether a method is one that others must beat to count as better."""
    return method in CONTROLS


def title(method: str) -> str:
    """A method's name for readers."""
    return TITLES.get(method, method)


def console_table(rows: Sequence[Row]) -> Table:
    """The rows as a table for the terminal; shares in percent, seconds a question."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in (
        "accuracy [95 %]",
        "prec.",
        "recall",
        "F1",
        "yes",
        "AUC",
        "s/question",
        "vs best control",
        "p (Holm)",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [row for row in rows if row["category"] == category]
        table.add_row(f"[bold]{category}[/bold] · {chosen[0]['n']} questions")
        for row in chosen:
            table.add_row("  " + title(row["method"]), *_cells(row))
        table.add_section()
    return table


def _cells(row: Row) -> list[str]:
    metrics, comparison = row["metrics"], row["comparison"]
    against, p = ("best control" if row["method"] in CONTROLS else "", "")
    if comparison is not None:
        against, p = f"{signed(comparison['difference'])} {signed_limits(comparison['interval'])}", p_value(comparison)
    return [
        f"{percent(metrics['accuracy'])} {limits(row['intervals']['accuracy'])}",
        *(percent(metrics[name]) for name in ("precision", "recall", "f1", "yes_ratio", "auc")),
        f"{row['seconds']:.3f}",
        against,
        p,
    ]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def limits(pair: Sequence[float]) -> str:
    return f"[{percent(pair[0])}, {percent(pair[1])}]"


def signed_limits(pair: Sequence[float]) -> str:
    return f"[{signed(pair[0])}, {signed(pair[1])}]"


def p_value(comparison: Mapping[str, Any]) -> str:
    p = comparison["p_holm"]
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
