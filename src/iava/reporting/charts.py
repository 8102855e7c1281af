"""Scatter charts of a run as coordinates for SVG, with axis ticks and labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from iava.metrics.results import Row, is_control
from iava.metrics.shift import BiasCurve
from iava.reporting.formatting import display_scale, metric_heading, metric_in_sentence
from iava.reporting.tables import axis_limits, main_metric, metric_cell
from iava.reporting.verdicts import title

WIDTH, HEIGHT = 560, 372
LEFT, RIGHT, TOP, BOTTOM = 46, 412, 14, 322
_LABEL_DISTANCE = 17  # pixels between the baselines of two labels
_CURVE_POINTS = 300

Tick = tuple[float, str]
"""Position in pixels, and text."""
Ends = tuple[float, float]
"""The values at both ends of an axis."""


@dataclass(frozen=True)
class Point:
    """A method in a chart. All coordinates are pixels.

    Args:
        x, y: the estimate.
        left, right: the horizontal interval.
        low, high: the vertical interval.
        label: the method's title.
        label_y: the height of the label, which stands right of the chart.
        highlighted: whether the method is not a control.
        text: title, value and interval, for the tooltip.
    """

    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    label: str
    label_y: float
    highlighted: bool
    text: str


@dataclass(frozen=True)
class Chart:
    """Methods in a plane with the main metric on the y axis.

    Args:
        title: the chart's title.
        x_label, y_label: axis labels.
        x_ticks, y_ticks: axis ticks.
        points: one for each method.
        curve: an SVG path of the reference, or "".
        band: an SVG path around its interval, or "".
        own, own_band: the same of the methods in the chart.
        reference_x: the pixel of a dotted vertical line, or None.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    points: list[Point]
    curve: str = ""
    band: str = ""
    own: str = ""
    own_band: str = ""
    reference_x: float | None = None


def yes_ratio_chart(rows: Sequence[Row], curve: BiasCurve | None, true_yes_ratio: float | None) -> Chart:
    """Accuracy against yes-ratio.

    Args:
        rows: of one category, with the metrics yes_ratio and accuracy.
        curve: accuracy of greedy decoding with a constant bias (see `bias_curve`). None if greedy was not run.
        true_yes_ratio: share of questions whose truth is yes. None draws no line.
    """
    x_ends, y_ends = axis_limits(rows, "yes_ratio"), axis_limits(rows, "accuracy")
    if true_yes_ratio is not None and x_ends[0] - 0.05 < true_yes_ratio < x_ends[1] + 0.05:
        x_ends = min(x_ends[0], true_yes_ratio - 0.01), max(x_ends[1], true_yes_ratio + 0.01)
    if curve is not None:
        visible = [accuracy for ratio, accuracy in zip(*curve, strict=True) if x_ends[0] <= ratio <= x_ends[1]]
        if visible:
            y_ends = y_ends[0], max(y_ends[1], min(1.0, max(visible) + 0.05 * (y_ends[1] - y_ends[0])))
    return Chart(
        "Yes-ratio and accuracy",
        "Yes-ratio, %",
        "Accuracy, %",
        ticks(x_ends, LEFT, RIGHT, 100),
        ticks(y_ends, BOTTOM, TOP, 100),
        _points([(row, row["metrics"]["yes_ratio"], row["intervals"]["yes_ratio"]) for row in rows], x_ends, y_ends),
        "" if curve is None else _path(curve, x_ends, y_ends),
        reference_x=None if true_yes_ratio is None else pixel(true_yes_ratio, x_ends, LEFT, RIGHT),
    )


def cost_chart(rows: Sequence[Row]) -> Chart:
    """The main metric against time per question, relative to greedy decoding where greedy was run."""
    main = main_metric(rows[0])
    greedy_seconds = next((row["seconds"] for row in rows if row["method"] == "greedy"), None)
    unit = greedy_seconds or 1.0
    costs = [(row, row["seconds"] / unit, None) for row in rows]
    x_ends = 0.0, 1.15 * max(cost for _, cost, _ in costs) or 1.0
    y_ends = axis_limits(rows, main)
    return Chart(
        f"Cost and {metric_in_sentence(main)}",
        "Time per question, relative to greedy" if greedy_seconds else "Seconds per question",
        metric_heading(main) + (", %" if display_scale(main) == 100 else ""),
        ticks(x_ends, LEFT, RIGHT, 1),
        ticks(y_ends, BOTTOM, TOP, display_scale(main)),
        _points(costs, x_ends, y_ends),
    )


def _points(rows: Sequence[tuple[Row, float, Sequence[float] | None]], x_ends: Ends, y_ends: Ends) -> list[Point]:
    """The points of rows with their x values and horizontal intervals."""
    points = []
    for row, x_value, x_limits in rows:
        main = main_metric(row)
        cell, y_value = metric_cell(row, main), row["metrics"][main]
        if y_value is None:
            continue
        low, high = row["intervals"].get(main) or (y_value, y_value)
        left, right = x_limits or (x_value, x_value)
        y = pixel(y_value, y_ends, BOTTOM, TOP)
        points.append(
            Point(
                x=pixel(x_value, x_ends, LEFT, RIGHT),
                y=y,
                left=pixel(left, x_ends, LEFT, RIGHT),
                right=pixel(right, x_ends, LEFT, RIGHT),
                low=pixel(low, y_ends, BOTTOM, TOP),
                high=pixel(high, y_ends, BOTTOM, TOP),
                label=title(row["method"]),
                label_y=y,
                highlighted=not is_control(row["method"]),
                text=f"{title(row['method'])}: {cell.text} {cell.note}".strip(),
            )
        )
    return separated(points)


def separated(points: Sequence[Point]) -> list[Point]:
    """Moves labels up or down until none overlap, each as close to its point as the others allow."""
    order = sorted(points, key=lambda point: point.y)
    heights = [point.y for point in order]
    distance = min(_LABEL_DISTANCE, (BOTTOM - TOP) / max(1, len(heights) - 1))
    for _ in range(200):
        moved = False
        for i in range(len(heights) - 1):
            overlap = distance - (heights[i + 1] - heights[i])
            if overlap > 0.01:
                heights[i], heights[i + 1] = heights[i] - overlap / 2, heights[i + 1] + overlap / 2
                moved = True
        if not moved:
            break
    for i in range(len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + distance if i else TOP)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], heights[i + 1] - distance if i + 1 < len(heights) else BOTTOM)
    label_y = {id(point): height for point, height in zip(order, heights, strict=True)}
    return [replace(point, label_y=round(label_y[id(point)], 1)) for point in points]


def _path(curve: BiasCurve, x_ends: Ends, y_ends: Ends) -> str:
    """An SVG path through evenly spaced points of the visible curve and through its maximum."""
    ratios, accuracies = curve
    visible = [i for i, ratio in enumerate(ratios) if x_ends[0] <= ratio <= x_ends[1]]
    if not visible:
        return ""
    # One more point on both sides: the drawing is clipped.
    first, last = max(0, visible[0] - 1), min(len(ratios) - 1, visible[-1] + 1)
    step = max(1, (last - first) // _CURVE_POINTS)
    best = max(visible, key=lambda i: accuracies[i])
    chosen = sorted({*range(first, last, step), last, best})
    pixels = [(pixel(ratios[i], x_ends, LEFT, RIGHT), pixel(accuracies[i], y_ends, BOTTOM, TOP)) for i in chosen]
    return "M" + "L".join(f"{x} {y}" for x, y in pixels)


def pixel(value: float, ends: Ends, start: float, stop: float) -> float:
    """Where a value of an axis stands, in pixels."""
    return round(start + (float(value) - ends[0]) / (ends[1] - ends[0]) * (stop - start), 1)


def ticks(ends: Ends, start: float, stop: float, scale: float) -> list[Tick]:
    """At most seven round numbers between the ends."""
    low, high = ends[0] * scale, ends[1] * scale
    magnitude = 10.0 ** math.floor(math.log10(high - low)) / 10
    step = next(magnitude * n for n in (1, 2, 5, 10, 20, 50, 100) if (high - low) / (magnitude * n) <= 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(pixel(value / scale, ends, start, stop), f"{value:.{digits}f}") for value in values]
