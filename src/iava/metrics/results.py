"""From records to numbers: metrics with intervals, and every method against the best control of its decoding mode.

A method that draws its tokens is compared with a control that draws, and one that takes the best token with a control
that does so, too: the difference between the two modes is no effect of a method (arXiv 2504.10020).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iava.methods import METHODS
from iava.metrics.parts import LOWER_IS_BETTER, Part, Record, Scored, group_of, unit_of
from iava.metrics.stats import auc, bootstrap_auc, by_cluster, holm, interval, mcnemar, paired_difference, resampled

Row = dict[str, Any]


def rows_of(
    records: Sequence[Record], *, benchmark: Scored, settings: Mapping[str, Mapping[str, Any]], seed: int
) -> list[Row]:
    """The results table: a row for each split, category (and "overall") and method.

    Args:
        records: what the runner wrote. Errors are counted and left out.
        benchmark: gives the parts and judges answers.
        settings: of each method, in the order of the rows, except that those that draw come last.
        seed: of the bootstrap.

    Returns:
        Rows with benchmark, split, category, method, n, errors, metrics (fractions of 1 except for a score; None where
        there is nothing to compute it from), intervals (95 %, [low, high]), main (the metric in which methods are
        compared), seconds a question, settings, draws (whether its tokens are drawn), and comparison. The comparison is
        None for the best control of a mode, and where no control has the method's mode. Others hold control, metric,
        difference of the metric, interval, p (exact McNemar, or the sign test of graded answers) and p_holm.
    """
    # The order in which questions were asked must not show in a bootstrap.
    ordered = sorted(records, key=lambda record: (record["image"], record["id"]))
    drawing = {method: draws(method, own) for method, own in settings.items()}
    rows: list[Row] = []
    for split in dict.fromkeys(record["split"] for record in ordered):
        here = [record for record in ordered if record["split"] == split]
        controls: dict[bool, str] = {}
        for part in benchmark.parts(list(dict.fromkeys(record["category"] for record in here))):
            held = [record for record in here if part.holds(record["category"])]
            every = {method: [record for record in held if record["method"] == method] for method in settings}
            chosen = {method: [r for r in some if "error" not in r] for method, some in every.items()}
            table = [
                {"benchmark": benchmark.name, "split": split, "category": part.name, "method": method}
                | _metrics_row(part, chosen[method], seed)
                | {"settings": dict(settings[method]), "errors": len(every[method]) - len(chosen[method])}
                | {"draws": drawing[method]}
                for method in sorted(settings, key=lambda name: drawing[name])
                if chosen[method]
            ]
            if part.name == "overall":
                controls = best_controls(table)
            _compare(part, benchmark, table, chosen, controls, seed)
            rows += table
    return rows


def _metrics_row(part: Part, records: Sequence[Record], seed: int) -> Row:
    clusters = [group_of(record) for record in records]
    sums = part.tally(records)
    draws = part.rates(resampled(by_cluster(sums, clusters), seed=seed))
    metrics = {name: _finite(value) for name, value in part.rates(sums.sum(axis=0)).items()}
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


def _finite(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def best_controls(rows: Sequence[Row]) -> dict[bool, str]:
    """By whether it draws, the control that is best overall (equal: the first), where there is one."""
    controls = [row for row in rows if row["category"] == "overall" and is_control(row["method"])]
    best: dict[bool, str] = {}
    for mode in (False, True):
        of_mode = [row for row in controls if row["draws"] == mode]
        if of_mode:
            best[mode] = max(of_mode, key=_goodness)["method"]
    return best


def _goodness(row: Row) -> float:
    value = row["metrics"][row["main"]]
    if value is None:
        return -np.inf
    return -value if row["main"] in LOWER_IS_BETTER else value


def _compare(
    part: Part,
    benchmark: Scored,
    table: list[Row],
    records: Mapping[str, Sequence[Record]],
    controls: Mapping[bool, str],
    seed: int,
) -> None:
    compared = []
    for row in table:
        control = controls.get(row["draws"])
        if control is None or control == row["method"]:
            continue
        by_id = {record["id"]: record for record in records[control]}
        ours = [record for record in records[row["method"]] if record["id"] in by_id]
        if not ours:
            continue
        theirs = [by_id[record["id"]] for record in ours]
        difference, limits = paired_difference(
            part.tally(ours),
            part.tally(theirs),
            [group_of(record) for record in ours],
            lambda sums: part.rates(sums)[part.main],
            seed=seed,
        )
        if math.isnan(difference):
            continue
        won, lost = zip(*_evidence(benchmark, ours, theirs), strict=True)
        row["comparison"] = {
            "control": control,
            "metric": part.main,
            "difference": difference,
            "interval": list(limits),
            "p": mcnemar(np.array(won), np.array(lost)),
        }
        compared.append(row["comparison"])
    for comparison, p in zip(compared, holm([c["p"] for c in compared]), strict=True):
        comparison["p_holm"] = p


def _evidence(benchmark: Scored, ours: Sequence[Record], theirs: Sequence[Record]) -> list[tuple[float, float]]:
    """How right two methods are on each unit of evidence. The records are of the same questions."""
    units: dict[Any, tuple[list[Record], list[Record]]] = {}
    for our, their in zip(ours, theirs, strict=True):
        mine, others = units.setdefault(unit_of(our), ([], []))
        mine.append(our)
        others.append(their)
    return [(benchmark.right(mine), benchmark.right(others)) for mine, others in units.values()]


def is_control(method: str) -> bool:
    """Whether a method is one that others must beat to count as better."""
    return method in METHODS and METHODS[method].control


def draws(method: str, settings: Mapping[str, Any]) -> bool:
    """Whether a method with these recorded settings draws its tokens."""
    usual = METHODS[method].sampling if method in METHODS else None
    return bool(settings.get("sampling", usual))
