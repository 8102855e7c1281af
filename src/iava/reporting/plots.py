"""Drawings with axes, as files; light ones, because a file cannot know what it is shown on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, REFERENCE = "#2f5d8a", "#b3541e"
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "iava"}
Limits = Sequence[float] | None


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row; width and height of each in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def estimates(
    axes: Axes,
    values: Sequence[float | None],
    limits: Sequence[Limits],
    *,
    labels: Sequence[str] | None = None,
    places: Sequence[float] | None = None,
    reference: tuple[str, float | None, Limits] | None = None,
    joined: bool = True,
) -> None:
    """Points with their intervals, and a line across for what they are compared with; all in percent.

    Args:
        values, limits: fractions of 1; None draws nothing.
        labels: below the points, which then stand equally far apart; long ones are turned.
        places: where the points stand, in place of labels.
        reference: name, value and interval.
        joined: whether a line leads from point to point.
    """
    at = range(len(values)) if places is None else places
    shown = [(place, v, ends or (v, v)) for place, v, ends in zip(at, values, limits, strict=True) if v is not None]
    x, y = np.array([(place, 100 * value) for place, value, _ in shown], dtype=float).reshape(-1, 2).T
    low, high = 100 * np.array([ends for _, _, ends in shown], dtype=float).reshape(-1, 2).T
    name, middle, band = reference or ("", None, None)
    if middle is not None:
        axes.axhline(100 * middle, color=REFERENCE, linewidth=1, linestyle="--", label=name)
        if band is not None:
            axes.axhspan(100 * band[0], 100 * band[1], color=REFERENCE, alpha=0.1, linewidth=0)
        axes.legend(frameon=False, fontsize=8)
    # Rounding may put a value a little outside of its own interval.
    errors = np.stack([y - low, high - y]).clip(min=0)
    axes.errorbar(x, y, errors, fmt="o-" if joined else "o", color=OURS, markersize=4, linewidth=1, capsize=2)
    if labels is not None:
        turned = max(map(len, labels), default=0) > 6
        axes.set_xticks(range(len(labels)), labels, rotation=40 if turned else 0, ha="right" if turned else "center")


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure; the same figure gives the same file. The name's ending says which kind."""
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
