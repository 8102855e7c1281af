"""What `iava bench` measured, as a Markdown table and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.jsonfiles import read_json

_CONFIGURATION = ("tokens", "questions", "batch")
_HEAD = ("new tokens", "questions", "images", "contender", "seconds", "over `generate`", "peak MB", "over `generate`")


def read_results(path: Path) -> dict[str, Any]:
    """The content of a cost.json.

    Raises:
        IavaError: if it cannot be read, or is something else.
    """
    results = read_json(path)
    if not isinstance(results, dict) or not {"command", "settings", "machine", "versions", "cells"} <= set(results):
        raise IavaError(f"{path} holds no measurement of iava bench: name a cost.json that it wrote")
    return results


def markdown(results: dict[str, Any]) -> str:
    """The table with everything that made it: medians, quartiles in brackets."""
    machine, versions = results["machine"], results["versions"]
    load = f"load of the machine {machine['load_before']:.1f} before"
    load += f" and {machine['load_after']:.1f} after" if results["finished"] else "; stopped before its end"
    lines = [
        f"`{results['command']}`",
        "",
        f"{machine['device']}, {machine['processor']}, {machine['threads']} of {machine['cores']} threads, "
        f"{machine['dtype']}; {results['model']['parameters'] / 1e6:,.0f} M parameters; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f"; {results['started']}; {results['settings']['repeats']} rounds; {load}.",
        "",
        "| " + " | ".join([*_HEAD, "decoder columns", "images read"]) + " |",
        "|---|---|---|---" + "|---:" * 6 + "|",
    ]
    return "\n".join([*lines, *(_line(cell) for cell in results["cells"])]) + "\n"


def _line(cell: dict[str, Any]) -> str:
    start = [*(str(cell[name]) for name in _CONFIGURATION), f"`{cell['contender']}`"]
    if cell["error"] is not None:
        return "| " + " | ".join([*start, cell["error"], *[""] * 5]) + " |"
    measured = [
        _with_quartiles(cell["time"], 3),
        _with_quartiles(cell["time_ratio"], 2) if "time_ratio" in cell else "",
        f"{cell['peak'] / 1e6:,.1f}",
        f"{cell['peak_ratio']:.2f}" if "peak_ratio" in cell else "",
        f"{cell['decoder_columns']:,}",
        str(cell["images_read"]),
    ]
    return "| " + " | ".join([*start, *measured]) + " |"


def _with_quartiles(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}]"


def plot(results: dict[str, Any], path: Path) -> None:
    """Time and peak memory over plain `generate`, a panel for each configuration, as a PNG file."""
    from matplotlib.figure import Figure

    cells = [cell for cell in results["cells"] if "time_ratio" in cell]
    tokens = sorted({cell["tokens"] for cell in cells})
    others = sorted({(cell["questions"], cell["batch"]) for cell in cells})
    if not cells:
        return
    names = list(dict.fromkeys(cell["contender"] for cell in cells))[::-1]
    size = (1.5 + 3.2 * len(tokens), 0.9 + len(others) * (0.7 + 0.28 * len(names)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(others), len(tokens), squeeze=False, sharex=True, sharey=True)
    for row, (questions, batch) in enumerate(others):
        for column, count in enumerate(tokens):
            panel = panels[row, column]
            panel.set_title(f"new tokens {count}, questions {questions}, images {batch}", fontsize=8)
            panel.axvline(1.0, color="0.6", linewidth=0.8)
            for cell in cells:
                if (cell["tokens"], cell["questions"], cell["batch"]) == (count, questions, batch):
                    low, middle, high = cell["time_ratio"]
                    place = names.index(cell["contender"])
                    panel.barh(place, middle, xerr=[[middle - low], [high - middle]], color="#5b8db8", height=0.6)
                    panel.plot(cell["peak_ratio"], place, "D", color="#c2571a", markersize=4)
            panel.set_yticks(range(len(names)), names, fontsize=7)
            panel.tick_params(axis="x", labelsize=7)
    figure.supxlabel("over plain generate: bar time (quartiles), diamond peak memory", fontsize=8)
    figure.savefig(path, dpi=150)
