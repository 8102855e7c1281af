"""The measurements of `iava bench` as a Markdown table and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from iava.cost.contenders import PLAIN
from iava.errors import IavaError
from iava.jsonfiles import read_json

_WORKLOAD = ("tokens", "questions", "batch")
_COST_HEADINGS = (
    "new tokens",
    "questions",
    "images",
    "method",
    "seconds",
    "vs `generate`",
    "peak MB",
    "vs `generate`",
    "decoder passes",
    "decoder columns",
    "images encoded",
)
_COUNT_HEADINGS = (
    "images",
    "method",
    "token",
    "kernels",
    "vs `generate`",
    "synchronisations",
    "decoder passes",
    "new keys and values, MB",
)
_TOKENS = {"first": "first", "second": "second", "step": "each further"}


def read_results(path: Path) -> dict[str, Any]:
    """The content of a cost.json.

    Raises:
        IavaError: if the file cannot be read, or is something else.
    """
    results = read_json(path)
    if not isinstance(results, dict) or not {"command", "settings", "machine", "versions", "cells"} <= set(results):
        raise IavaError(f"{path} holds no measurement of iava bench: name a cost.json that it wrote")
    return results


def cost_markdown(results: dict[str, Any]) -> str:
    """Markdown tables below the command and the environment: medians with quartiles in brackets, and the counts."""
    machine, versions = results["machine"], results["versions"]
    load = f"machine load {machine['load_before']:.1f} before"
    load += f" and {machine['load_after']:.1f} after" if results["finished"] else "; stopped before the end"
    environment = [
        f"{machine['device']}, {machine['processor']}, {machine['threads']} of {machine['cores']} threads, "
        f"{machine['dtype']}",
        f"{results['model']['parameters'] / 1e6:,.0f} M parameters",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
        results["started"],
        f"{results['settings']['repeats']} rounds",
        load,
    ]
    lines = [f"`{results['command']}`", "", "; ".join(environment) + "."]
    if results["cells"]:
        lines += ["", "| " + " | ".join(_COST_HEADINGS) + " |", "|---|---|---|---" + "|---:" * 7 + "|"]
        lines += map(_table_line, results["cells"])
    # A file of an earlier version has no counts.
    if results.get("counts"):
        lines += ["", "| " + " | ".join(_COUNT_HEADINGS) + " |", "|---|---|---" + "|---:" * 5 + "|"]
        plain = {one["batch"]: one for one in results["counts"] if one["contender"] == PLAIN}
        lines += [line for one in results["counts"] for line in _count_lines(one, plain[one["batch"]])]
    return "\n".join(lines) + "\n"


def _count_lines(counts: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    names = [str(counts["batch"]), f"`{counts['contender']}`"]
    if counts["error"] is not None:
        return ["| " + " | ".join([*names, counts["error"], *[""] * 5]) + " |"]
    lines = []
    for token, name in _TOKENS.items():
        one, kernels = counts[token], plain[token]["kernels"] if plain["error"] is None else None
        values = [
            f"{one['kernels']:,}",
            f"{one['kernels'] / kernels:.2f}" if kernels else "",
            str(one["syncs"]),
            str(one["passes"]),
            f"{one['cache_bytes'] / 1e6:,.1f}",
        ]
        lines.append("| " + " | ".join([*names, name, *values]) + " |")
    return lines


def _table_line(measurement: dict[str, Any]) -> str:
    names = [*(str(measurement[name]) for name in _WORKLOAD), f"`{measurement['contender']}`"]
    if measurement["error"] is not None:
        return "| " + " | ".join([*names, measurement["error"], *[""] * 6]) + " |"
    values = [
        _with_quartiles(measurement["time"], 3),
        _with_quartiles(measurement["time_ratio"], 2) if "time_ratio" in measurement else "",
        f"{measurement['peak'] / 1e6:,.1f}",
        f"{measurement['peak_ratio']:.2f}" if "peak_ratio" in measurement else "",
        str(measurement.get("decoder_passes", "")),
        f"{measurement['decoder_columns']:,}",
        str(measurement["images_read"]),
    ]
    return "| " + " | ".join([*names, *values]) + " |"


def _with_quartiles(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def plot_costs(results: dict[str, Any], path: Path) -> None:
    """Time and peak memory relative to plain `generate` as a PNG file, with a panel for each workload."""
    measurements = [one for one in results["cells"] if "time_ratio" in one]
    if not measurements:
        return
    tokens = sorted({one["tokens"] for one in measurements})
    batches = sorted({(one["questions"], one["batch"]) for one in measurements})
    names = list(dict.fromkeys(one["contender"] for one in measurements))[::-1]
    size = (1.5 + 3.2 * len(tokens), 0.9 + len(batches) * (0.7 + 0.28 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(batches), len(tokens), squeeze=False, sharex=True, sharey=True)
    for row, (questions, batch) in enumerate(batches):
        for column, count in enumerate(tokens):
            panel = panels[row, column]
            panel.set_title(f"{count} new tokens, {questions} questions, {batch} images", fontsize=8)
            panel.axvline(1.0, color="0.6", linewidth=0.8)
            for one in measurements:
                if (one["tokens"], one["questions"], one["batch"]) == (count, questions, batch):
                    low, middle, high = one["time_ratio"]
                    y = names.index(one["contender"])
                    panel.barh(y, middle, xerr=[[middle - low], [high - middle]], color="#5b8db8", height=0.6)
                    panel.plot(one["peak_ratio"], y, "D", color="#c2571a", markersize=4)
            panel.set_yticks(range(len(names)), names, fontsize=7)
            panel.tick_params(axis="x", labelsize=7)
    figure.supxlabel("relative to plain generate: time (bars, with quartiles) and peak memory (diamonds)", fontsize=8)
    figure.savefig(path, dpi=150)
