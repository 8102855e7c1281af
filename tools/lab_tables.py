"""The tables of the lab: `python -m tools.lab_tables runs/lab 3` writes them anew from the records of `tools.lab`.

A cell has a line for each model. A mark says that every line's interval is clear of zero, on the same side.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from iava.cost.contenders import PLAIN, Bench
from iava.cost.counts import count_tokens
from iava.cost.plan import CostPlan
from iava.files import write_text
from iava.lvlm.loading import load
from iava.metrics.shift import at_best_threshold, beyond_bias
from iava.metrics.stats import Interval, auc, auc_difference, paired_difference
from tools.lab import BLURRED, FITTED, IDEAL, KINDS, METHODS, SEED, Rows, fitted_weight, margins, measured, rows, truths
from tools.lab import split as split_of

CONTROLS = ("greedy", FITTED, "prompt-bias", "restore")
"""Of those that take the most probable token, as all methods do but two: "sample" and "apc" draw."""
UNCOUNTED = ("prompt-bias", "oracle")
"""Methods that need another prompt, or regions; their cost is that of "greedy" and of "no-image"."""


@dataclass(frozen=True)
class Line:
    """A method on one split of one model; fractions of 1.

    Args:
        accuracy: of its answers.
        against_control: accuracy minus that of the best control, with its interval, as all differences here.
        auc: of its margins.
        auc_gain: over greedy decoding.
        calibrated: accuracy at the best threshold of its own margin.
        calibrated_gain: over greedy decoding at its best threshold.
        beyond: accuracy beyond a constant bias at the same yes-ratio.
        of_ideal: the gain in AUC as a share of the ideal observer's; None where there is hardly anything to gain.
        of_lost: the gain in AUC as a share of what greedy decoding lost against scenes with normal evidence.
    """

    accuracy: float
    against_control: tuple[float, Interval]
    auc: float
    auc_gain: tuple[float, Interval]
    calibrated: float
    calibrated_gain: tuple[float, Interval]
    beyond: tuple[float, Interval]
    of_ideal: float | None
    of_lost: float | None


Lines = dict[str, list[Line]]
"""Method -> its line of each model."""


def line(ours: Rows, greedy: Rows, control: Rows, ideal: float, clean: float) -> Line:
    """Compares a method's answers with those of greedy decoding and of the best control to the same questions.

    Args:
        ideal: AUC of the ideal observer.
        clean: AUC of greedy decoding on the same scenes with normal evidence.
    """
    truth, images = truths(ours), [record["image"] for record in ours.values()]
    right, theirs = (_right(some) for some in (ours, control))
    said = [record["parsed"] == "yes" for record in ours.values()]
    reference, own = margins(greedy), margins(ours)
    calibrated, more, limits = at_best_threshold(own, reference, truth, images, seed=SEED)
    gain = auc_difference(own, reference, truth, images, seed=SEED)
    base = _auc(greedy)
    return Line(
        float(right[:, 0].mean()),
        paired_difference(right, theirs, images, lambda s: s[..., 0] / s[..., 1], seed=SEED),
        _auc(ours),
        gain,
        calibrated,
        (more, limits),
        beyond_bias(reference, truth, said, right[:, 0].astype(bool).tolist(), images, seed=SEED),
        _share(gain[0], ideal - base),
        _share(gain[0], clean - base),
    )


def lines(out: Path, models: int, kind: str) -> Lines:
    """All methods on one test split."""
    found: Lines = {}
    for number in range(1, models + 1):
        every = measured(out / f"model{number}", kind)
        clean = _auc(rows(out / f"model{number}" / "test")["greedy"])
        control = max(CONTROLS, key=lambda name: _right(every[name])[:, 0].mean())
        for name, ours in every.items():
            one = line(ours, every["greedy"], every[control], _auc(every[IDEAL]), clean)
            found.setdefault(name, []).append(one)
    return found


def _right(records: Rows) -> np.ndarray:
    return np.array([[record["parsed"] == record["truth"], 1.0] for record in records.values()])


def _auc(records: Rows) -> float:
    return auc(margins(records), truths(records)) or 0.0


def _share(gain: float, whole: float) -> float | None:
    return gain / whole if whole > 0.005 else None


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(found: tuple[float, Interval]) -> str:
    value, (low, high) = found
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _part(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


COLUMNS: dict[str, Callable[[Line], str]] = {
    "accuracy": lambda one: _percent(one.accuracy),
    "vs best control": lambda one: _points(one.against_control),
    "AUC": lambda one: _percent(one.auc),
    "vs greedy": lambda one: _points(one.auc_gain),
    "at best threshold": lambda one: _percent(one.calibrated),
    "vs greedy's": lambda one: _points(one.calibrated_gain),
    "beyond bias": lambda one: _points(one.beyond),
    "% of ideal gain": lambda one: _part(one.of_ideal),
    "% of lost AUC": lambda one: _part(one.of_lost),
}


def table(found: Lines) -> str:
    """The Markdown table of one split, in the order of AUC."""
    order = sorted(found, key=lambda name: -sum(one.auc for one in found[name]))
    cells = [[_joined(map(show, found[name])) for show in COLUMNS.values()] for name in order]
    return _markdown(["method", *COLUMNS], [[name, *row] for name, row in zip(order, cells, strict=True)])


def at_a_glance(
    every: dict[str, Lines],
    value: Callable[[Line], str],
    difference: Callable[[Line], tuple[float, Interval]],
    costs: dict[str, str] | None = None,
) -> str:
    """A Markdown table with a row for each method and a column for each split.

    Args:
        every: kind -> its lines.
        value: what a line of a cell shows.
        difference: what must be clear of zero for a mark.
        costs: method -> the cell of a last column.
    """

    def mean(name: str) -> float:
        return float(np.mean([one.auc for found in every.values() for one in found[name]]))

    names = sorted(next(iter(every.values())), key=mean, reverse=True)
    body = []
    for name in names:
        cells = [_joined(map(value, found[name])) + _mark(map(difference, found[name])) for found in every.values()]
        body.append([name, *cells, *([costs[name]] if costs else [])])
    return _markdown(["method", *(f"`{split_of('test', kind)}`" for kind in every), *(["cost"] if costs else [])], body)


def _mark(found: Iterable[tuple[float, Interval]]) -> str:
    limits = [interval for _, interval in found]
    if all(low > 0 for low, _ in limits):
        return " ▲"
    return " ▼" if all(high < 0 for _, high in limits) else ""


def _joined(cells: Iterable[str]) -> str:
    return "<br>".join(cells)


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in every)


def observers(out: Path, models: int, every: dict[str, Lines]) -> str:
    """What there is to gain on each split, and the weight of the context that the ideal observer subtracts."""
    body = []
    for kind, found in every.items():
        tuned = [rows(out / f"model{number}" / split_of("tune", kind))["greedy"] for number in range(1, models + 1)]
        parts = [
            _joined(_points(one.auc_gain) for one in found[IDEAL]),
            _joined(f"{fitted_weight(tune):+.2f}" for tune in tuned),
            *(_joined(_part(one.of_ideal) for one in found[name]) for name in (BLURRED, "vcd", "restore")),
            *(_joined(_part(one.of_lost) for one in found[name]) for name in (BLURRED, "vcd", "restore")),
        ]
        body.append([f"`{split_of('test', kind)}`", *parts])
    head = ["split", "ideal observer: AUC vs greedy", "weight subtracted"]
    head += [f"{part}: {name}" for part in ("% of ideal gain", "% of lost AUC") for name in (BLURRED, "vcd", "restore")]
    return _markdown(head, body)


def costs() -> dict[str, str]:
    """The kernels of the first token of the shipped model, over those of plain `generate`."""
    bench = Bench(load("pocket"), CostPlan("pocket", [name for name in METHODS if name not in UNCOUNTED]))
    kernels = {name: count_tokens(bench, name, 1)["first"]["kernels"] for name in bench.contenders}
    found = {name: f"{count / kernels[PLAIN]:.2f}" for name, count in kernels.items()}
    alike = {"prompt-bias": "greedy", "oracle": "no-image", FITTED: "greedy", IDEAL: "greedy", BLURRED: "vcd"}
    return found | {name: found[other] for name, other in alike.items()}


def write_tables(out: Path, models: int) -> None:
    """Writes OUT/summary.md, and OUT/splits.md with a table for each split that is measured on all models."""
    kinds = [kind for kind in KINDS if all(_is_measured(out / f"model{n}", kind) for n in range(1, models + 1))]
    every = {kind: lines(out, models, kind) for kind in kinds}
    summary = [
        at_a_glance(every, lambda one: _percent(one.auc), lambda one: one.auc_gain, costs()),
        at_a_glance(every, lambda one: f"{100 * one.against_control[0]:+.1f}", lambda one: one.against_control),
        observers(out, models, every),
    ]
    write_text(out / "summary.md", "\n\n".join(summary) + "\n")
    parts = []
    for kind, found in every.items():
        name = split_of("test", kind)
        images = {record["image"] for record in rows(out / "model1" / name)["greedy"].values()}
        parts.append(f"## `{name}`\n\n{len(images)} images.\n\n{table(found)}")
    write_text(out / "splits.md", "\n\n".join(parts) + "\n")


def _is_measured(out: Path, kind: str) -> bool:
    return (out / f"{split_of('test', kind)}-vcd-blur" / "results.json").exists()


if __name__ == "__main__":
    typer.run(write_tables)
