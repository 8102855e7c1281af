"""Drawings of a run, ready to be put into an SVG: places in pixels, texts beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from iava.metrics.results import Row, is_control
from iava.metrics.shift import Curve
from iava.reporting.formatting import heading, scale, within
from iava.reporting.tables import axis, estimate, main_metric
from iava.reporting.verdicts import title

WIDTH, HEIGHT = 560, 372
LEFT, RIGHT, TOP, BOTTOM = 46, 412, 14, 322
_APART = 17  # pixels between two labels
_CURVE_POINTS = 300

Tick = tuple[float, str]


@dataclass(frozen=True)
class Point:
    """A method: where it is, how far its interval reaches both ways, and where its label stands."""

    x: float
    y: float
    left: float
    right: float
    low: float
    high: float
    label: str
    label_y: float
    ours: bool
    text: str


@dataclass(frozen=True)
class Chart:
    """Methods in a plane, with accuracy or its like upwards.

    Args:
        title: what it shows.
        across, up: what the axes mean.
        ticks_across, ticks_up: places and texts.
        points: a method each.
        curve: an SVG path; empty if there is none.
        middle: where as many questions are answered with yes as should be; None if that is not shown.
    """

    title: str
    across: str
    up: str
    ticks_across: list[Tick]
    ticks_up: list[Tick]
    points: list[Point]
    curve: str = ""
    middle: float | None = None


def yes_chart(rows: Sequence[Row], curve: Curve | None, share: float | None) -> Chart:
    """Yes-ratio across, accuracy upwards.

    Args:
        rows: of one category, with yes_ratio and accuracy.
        curve: see `bias_curve`; None if greedy decoding was not run.
        share: of questions whose truth is yes.
    """
    across, up = axis(rows, "yes_ratio"), axis(rows, "accuracy")
    if share is not None and across[0] - 0.05 < share < across[1] + 0.05:
        across = min(across[0], share - 0.01), max(across[1], share + 0.01)
    if curve is not None:
        inside = [a for y, a in zip(*curve, strict=True) if across[0] <= y <= across[1]]
        if inside:
            up = up[0], max(up[1], min(1.0, max(inside) + 0.05 * (up[1] - up[0])))
    return Chart(
        "Yes-ratio and accuracy",
        "Questions answered with yes, %",
        "Accuracy, %",
        _ticks(across, LEFT, RIGHT, 100),
        _ticks(up, BOTTOM, TOP, 100),
        _points([(row, row["metrics"]["yes_ratio"], row["intervals"]["yes_ratio"]) for row in rows], across, up),
        "" if curve is None else _path(curve, across, up),
        None if share is None else _place(share, across, LEFT, RIGHT),
    )


def cost_chart(rows: Sequence[Row]) -> Chart:
    """Cost across, in times of greedy decoding where that was run, and the main metric upwards."""
    main = main_metric(rows[0])
    greedy = next((row["seconds"] for row in rows if row["method"] == "greedy"), None)
    unit = greedy or 1.0
    costs = [(row, row["seconds"] / unit, None) for row in rows]
    across = 0.0, 1.15 * max(cost for _, cost, _ in costs) or 1.0
    up = axis(rows, main)
    return Chart(
        f"Cost and {within(main)}",
        "Time a question, times greedy" if greedy else "Seconds a question",
        heading(main) + (", %" if scale(main) == 100 else ""),
        _ticks(across, LEFT, RIGHT, 1),
        _ticks(up, BOTTOM, TOP, scale(main)),
        _points(costs, across, up),
    )


def _points(
    placed: Sequence[tuple[Row, float, Sequence[float] | None]], across: tuple[float, float], up: tuple[float, float]
) -> list[Point]:
    found = []
    for row, value, limits in placed:
        main = main_metric(row)
        cell, height = estimate(row, main), row["metrics"][main]
        if height is None:
            continue
        low, high = row["intervals"].get(main) or (height, height)
        left, right = limits or (value, value)
        y = _place(height, up, BOTTOM, TOP)
        found.append(
            Point(
                x=_place(value, across, LEFT, RIGHT),
                y=y,
                left=_place(left, across, LEFT, RIGHT),
                right=_place(right, across, LEFT, RIGHT),
                low=_place(low, up, BOTTOM, TOP),
                high=_place(high, up, BOTTOM, TOP),
                label=title(row["method"]),
                label_y=y,
                ours=not is_control(row["method"]),
                text=f"{title(row['method'])}: {cell.text} {cell.note}".strip(),
            )
        )
    return _labelled(found)


def _labelled(points: Sequence[Point]) -> list[Point]:
    """The points with their labels one below the other, each as near to its point as the others leave room."""
    order = sorted(points, key=lambda point: point.y)
    places = [point.y for point in order]
    for _ in range(200):
        moved = False
        for i in range(len(places) - 1):
            lack = _APART - (places[i + 1] - places[i])
            if lack > 0.01:
                places[i], places[i + 1] = places[i] - lack / 2, places[i + 1] + lack / 2
                moved = True
        if not moved:
            break
    shift = max(0.0, TOP - places[0]) - max(0.0, places[-1] - BOTTOM) if places else 0.0
    labels = {id(point): place + shift for point, place in zip(order, places, strict=True)}
    return [replace(point, label_y=round(labels[id(point)], 1)) for point in points]


def _path(curve: Curve, across: tuple[float, float], up: tuple[float, float]) -> str:
    """A line through so many points of the curve, evenly spread over what is drawn, and through its best one."""
    ratios, accuracies = curve
    inside = [i for i, ratio in enumerate(ratios) if across[0] <= ratio <= across[1]]
    if not inside:
        return ""
    # One more on both sides: the drawing is clipped.
    first, last = max(0, inside[0] - 1), min(len(ratios) - 1, inside[-1] + 1)
    step = max(1, (last - first) // _CURVE_POINTS)
    best = max(inside, key=lambda i: accuracies[i])
    chosen = sorted({*range(first, last, step), last, best})
    places = [(_place(ratios[i], across, LEFT, RIGHT), _place(accuracies[i], up, BOTTOM, TOP)) for i in chosen]
    return "M" + "L".join(f"{x} {y}" for x, y in places)


def _place(value: float, ends: tuple[float, float], start: float, stop: float) -> float:
    return round(start + (float(value) - ends[0]) / (ends[1] - ends[0]) * (stop - start), 1)


def _ticks(ends: tuple[float, float], start: float, stop: float, factor: float) -> list[Tick]:
    """Round numbers between the ends, at most seven."""
    low, high = ends[0] * factor, ends[1] * factor
    size = 10.0 ** math.floor(math.log10(high - low)) / 10
    step = next(size * times for times in (1, 2, 5, 10, 20, 50, 100) if (high - low) / (size * times) <= 6)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(_place(value / factor, ends, start, stop), f"{value:.{digits}f}") for value in values]
