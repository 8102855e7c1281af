"""From records to numbers: metrics with intervals, and every method against the best control."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from iava.benchmarks.pope import auc
from iava.benchmarks.registry import BENCHMARKS, LOWER_IS_BETTER, Part
from iava.evaluation.records import Record
from iava.methods import METHODS
from iava.metrics.stats import bootstrap_auc, by_cluster, holm, interval, mcnemar, paired_difference, resampled
from iava.reporting.formatting import number, pair, within

Row = dict[str, Any]


def rows_of(
    records: Sequence[Record], *, benchmark: str, settings: Mapping[str, Mapping[str, Any]], seed: int
) -> list[Row]:
    """The results table, a row for each split, category (and "overall") and method.

    Args:
        records: what the runner wrote; errors are counted and left out.
        benchmark: the data set's name, of `iava.benchmarks.registry.BENCHMARKS`.
        settings: of each method, in the order of the rows.
        seed: of the bootstrap.

    Returns:
        Rows with benchmark, split, category, method, n, errors, metrics (fractions of 1 but for a score; None where
        there is nothing to compute it from), intervals (95 %, [low, high]), main (the metric in which methods are
        compared), seconds a question, settings, and comparison: None for the best control, else control, metric,
        difference of the metric, interval, p (exact McNemar, or the sign test of graded answers) and p_holm.
    """
    # The order in which questions were asked must not show in a bootstrap.
    ordered = sorted(records, key=lambda record: (record["image"], record["id"]))
    right = BENCHMARKS[benchmark].right
    rows: list[Row] = []
    for split in dict.fromkeys(record["split"] for record in ordered):
        here = [record for record in ordered if record["split"] == split]
        control = None
        for part in BENCHMARKS[benchmark].parts(list(dict.fromkeys(record["category"] for record in here))):
            held = [record for record in here if part.holds(record["category"])]
            every = {method: [record for record in held if record["method"] == method] for method in settings}
            chosen = {method: [r for r in some if "error" not in r] for method, some in every.items()}
            table = [
                {"benchmark": benchmark, "split": split, "category": part.name, "method": method}
                | _row(part, chosen[method], seed)
                | {"settings": dict(settings[method]), "errors": len(every[method]) - len(chosen[method])}
                for method in settings
                if chosen[method]
            ]
            if part.name == "overall":
                control = best_control(table)
            _compare(part, right, table, chosen, control, seed)
            rows += table
    return rows


def _row(part: Part, records: Sequence[Record], seed: int) -> Row:
    clusters = [record["image"] for record in records]
    sums = part.tally(records)
    draws = part.rates(resampled(by_cluster(sums, clusters), seed=seed))
    metrics = {name: _number(value) for name, value in part.rates(sums.sum(axis=0)).items()}
    intervals = {name: interval(values) for name, values in draws.items() if np.isfinite(values).any()}
    if all("yes" in record for record in records):
        margins, truths = [r["yes"] - r["no"] for r in records], [r["truth"] for r in records]
        metrics["auc"] = auc(margins, truths)
        if metrics["auc"] is not None:
            intervals["auc"] = bootstrap_auc(margins, [truth == "yes" for truth in truths], clusters, seed=seed)
    seconds = {(record["image"], record["question"]): record["seconds"] for record in records}
    return {
        "n": len(records),
        "metrics": metrics,
        "intervals": {name: list(limits) for name, limits in intervals.items()},
        "main": part.main,
        "seconds": float(np.mean(list(seconds.values()))),
        "comparison": None,
    }


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def best_control(rows: Sequence[Row]) -> str | None:
    """The control that is best overall (equal: the first); None if there is no control."""
    controls = [row for row in rows if row["category"] == "overall" and is_control(row["method"])]
    return max(controls, key=_goodness)["method"] if controls else None


def _goodness(row: Row) -> float:
    value = row["metrics"][row["main"]]
    if value is None:
        return -np.inf
    return -value if row["main"] in LOWER_IS_BETTER else value


def _compare(
    part: Part,
    right: Callable[[Record], float],
    table: list[Row],
    records: Mapping[str, Sequence[Record]],
    control: str | None,
    seed: int,
) -> None:
    if control is None:
        return
    by_id = {record["id"]: record for record in records[control]}
    compared = []
    for row in table:
        ours = [record for record in records[row["method"]] if record["id"] in by_id]
        if row["method"] == control or not ours:
            continue
        theirs = [by_id[record["id"]] for record in ours]
        difference, limits = paired_difference(
            part.tally(ours),
            part.tally(theirs),
            [record["image"] for record in ours],
            lambda sums: part.rates(sums)[part.main],
            seed=seed,
        )
        if math.isnan(difference):
            continue
        # A question may stand in several categories, as POPE's positives do: as evidence it counts once.
        once = {(a["image"], a["question"]): (right(a), right(b)) for a, b in zip(ours, theirs, strict=True)}
        won, lost = np.array(list(once.values())).T
        row["comparison"] = {
            "control": control,
            "metric": part.main,
            "difference": difference,
            "interval": list(limits),
            "p": mcnemar(won, lost),
        }
        compared.append(row["comparison"])
    for comparison, p in zip(compared, holm([c["p"] for c in compared]), strict=True):
        comparison["p_holm"] = p


def remarks(records: Sequence[Record]) -> list[str]:
    """What a reader of the results must know: how many questions got no answer, an empty one, or neither yes nor no."""
    said = []
    for method in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == method]
        failed = [record for record in mine if "error" in record]
        answered = [record for record in mine if "error" not in record]
        empty = [record for record in answered if not record["text"].strip()]
        vague = [r for r in answered if "yes" in r and r["parsed"] is None and r["text"].strip()]
        for some, words in (
            (failed, "questions got no answer and are left out"),
            (empty, "answers are empty"),
            (vague, "answers are read as neither yes nor no, and count as wrong"),
        ):
            if some:
                example = some[0].get("error", repr(some[0]["text"]))
                said.append(f"{title(method)}: {len(some)} of {len(mine)} {words}; {some[0]['id']}: {example}")
    return said


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One sentence for each method that is no control: what the overall row says, for better or worse."""
    ours = [row for row in rows if row["category"] == "overall" and not is_control(row["method"])]
    return [_verdict(row) for row in ours]


def _verdict(row: Row) -> str:
    name, comparison = title(row["method"]), row["comparison"]
    if comparison is None:
        return f"{name} was run without a control, so nothing can be said about whether it helps."
    metric, (low, high) = comparison["metric"], comparison["interval"]
    difference = number(metric, comparison["difference"], sign=True)
    control = f"the best control ({title(comparison['control'])})"
    limits = f"95 % interval {pair(metric, (low, high), sign=True)}"
    better, worse = (high < 0, low > 0) if metric in LOWER_IS_BETTER else (low > 0, high < 0)
    outcome = "it helps here." if better else "it does not help here." if worse else "no difference is shown here."
    where = "" if metric == "accuracy" else f"In {within(metric)}, "
    if metric in LOWER_IS_BETTER:
        where = f"In {within(metric)}, of which less is better, "
    if difference[1:] == "0.0":
        equal = "is as accurate as" if metric == "accuracy" else "is level with"
        return f"{where}{name} {equal} {control}, {limits}: {outcome}"
    side = "above" if difference[0] == "+" else "below"
    return f"{where}{name} is {difference[1:]} points {side} {control}, {limits}: {outcome}"


def is_control(method: str) -> bool:
    """Whether a method is one that others must beat to count as better."""
    return method in METHODS and METHODS[method].control


def title(method: str) -> str:
    """A method's name for readers; a variant that has no command-line name keeps its own."""
    return (METHODS[method].title or METHODS[method].__name__) if method in METHODS else method
