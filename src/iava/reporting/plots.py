"""Matplotlib figures for studies: estimates with their intervals. They have a light background."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SERIES_COLOUR, REFERENCE_COLOUR = "#2f5d8a", "#b3541e"
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "iava"}
Whisker = Sequence[float] | None
"""Lower and upper end of an interval, or None where there is no interval."""


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of axes, listed row by row. `width` and `height` are those of one panel, in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def plot_estimates(
    axes: Axes,
    values: Sequence[float | None],
    limits: Sequence[Whisker],
    *,
    labels: Sequence[str] | None = None,
    positions: Sequence[float] | None = None,
    reference: tuple[str, float | None, Whisker] | None = None,
    joined: bool = True,
) -> None:
    """Draws points with error bars, and a horizontal line for their reference, in percent.

    Args:
        values, limits: estimates and intervals as fractions of 1. A value of None is not drawn.
        labels: tick labels of equally spaced points. Labels of more than 6 characters are rotated.
        positions: x coordinates of the points, in place of equal spacing.
        reference: name, value and interval of what the points are compared with.
        joined: whether a line connects the points.
    """
    at = range(len(values)) if positions is None else positions
    points = [(x, v, ends or (v, v)) for x, v, ends in zip(at, values, limits, strict=True) if v is not None]
    x, y = np.array([(x, 100 * value) for x, value, _ in points], dtype=float).reshape(-1, 2).T
    low, high = 100 * np.array([ends for _, _, ends in points], dtype=float).reshape(-1, 2).T
    name, middle, band = reference or ("", None, None)
    if middle is not None:
        axes.axhline(100 * middle, color=REFERENCE_COLOUR, linewidth=1, linestyle="--", label=name)
        if band is not None:
            axes.axhspan(100 * band[0], 100 * band[1], color=REFERENCE_COLOUR, alpha=0.1, linewidth=0)
        axes.legend(frameon=False, fontsize=8)
    # Rounding can put a value slightly outside its own interval.
    errors = np.stack([y - low, high - y]).clip(min=0)
    axes.errorbar(x, y, errors, fmt="o-" if joined else "o", color=SERIES_COLOUR, markersize=4, linewidth=1, capsize=2)
    if labels is not None:
        rotated = max(map(len, labels), default=0) > 6
        axes.set_xticks(range(len(labels)), labels, rotation=40 if rotated else 0, ha="right" if rotated else "center")


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure in the format of the file's extension. Equal figures give equal files."""
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
