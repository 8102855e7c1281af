"""Points lie where the ticks say, and labels do not overlap."""

from itertools import pairwise

import pytest

from iava.metrics.shift import bias_curve
from iava.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, cost_chart, yes_ratio_chart
from tests.reporting.test_tables import row


def rows(*values):
    methods = ("greedy", "apc", "bias", "iava", "sample")
    return [
        row(method, "overall", {"accuracy": accuracy, "yes_ratio": yes_ratio}, seconds=seconds)
        for method, (accuracy, yes_ratio, seconds) in zip(methods, values, strict=False)
    ]


def test_points_lie_where_the_ticks_say():
    chart = yes_ratio_chart(rows((0.9, 0.5, 1.0), (0.8, 0.6, 1.0)), None, 0.5)
    x_of = {float(text): x for x, text in chart.x_ticks}
    y_of = {float(text): y for y, text in chart.y_ticks}
    greedy, apc = chart.points
    assert (greedy.x, greedy.y) == pytest.approx((x_of[50], y_of[90]), abs=0.2)
    assert (apc.x, apc.y) == pytest.approx((x_of[60], y_of[80]), abs=0.2)
    assert chart.reference_x == greedy.x
    assert greedy.left < greedy.x < greedy.right
    assert greedy.high < greedy.y < greedy.low
    assert chart.curve == ""
    for ticks in (chart.x_ticks, chart.y_ticks):
        assert 3 <= len(ticks) <= 7
    assert all(LEFT <= x <= RIGHT for x in x_of.values())
    assert all(TOP <= y <= BOTTOM for y in y_of.values())


def test_labels_are_separated_and_inside_the_chart():
    equal = yes_ratio_chart(rows(*[(0.8, 0.5, 1.0)] * 5), None, None)
    heights = sorted(point.label_y for point in equal.points)
    assert all(lower - upper >= 16.8 for upper, lower in pairwise(heights))
    assert heights[0] >= TOP - 1
    assert heights[-1] <= BOTTOM + 1


def test_many_labels_stay_inside_the_chart_too():
    # A crowd near the top, and one at the bottom.
    methods = rows(*[(0.9, 0.5, 1.0)] * 4, (0.1, 0.5, 1.0)) + rows(*[(0.88, 0.5, 1.0)] * 5) * 4
    heights = sorted(point.label_y for point in yes_ratio_chart(methods, None, None).points)
    assert (heights[0], heights[-1]) == pytest.approx((TOP, BOTTOM), abs=1)
    assert all(lower - upper >= 10 for upper, lower in pairwise(heights))


def test_the_bias_curve_passes_through_greedy():
    margins, truths = [2.0, 1.0, 0.5, -0.5, -1.0, -2.0], ["yes", "yes", "no", "yes", "no", "no"]
    chart = yes_ratio_chart(rows((4 / 6, 0.5, 1.0), (0.5, 1 / 6, 1.0)), bias_curve(margins, truths), 0.5)
    pixels = [tuple(map(float, pixel.split())) for pixel in chart.curve[1:].split("L")]
    greedy = chart.points[0]
    assert min(abs(x - greedy.x) + abs(y - greedy.y) for x, y in pixels) < 0.5
    assert [x for x, _ in pixels] == sorted(x for x, _ in pixels)


def test_cost_is_relative_to_greedy():
    chart = cost_chart(rows((0.9, 0.5, 0.2), (0.8, 0.6, 0.5)))
    assert chart.x_label == "Time per question, relative to greedy"
    x_of = {float(text): x for x, text in chart.x_ticks}
    assert chart.points[0].x == pytest.approx(x_of[1], abs=0.2)
    # The second method takes 0.5 s, 2.5 times as long as greedy.
    assert chart.points[1].x == pytest.approx(x_of[0] + 2.5 * (x_of[1] - x_of[0]), abs=0.3)
    without_greedy = cost_chart(rows((0.9, 0.5, 0.2), (0.8, 0.6, 0.5))[1:])
    assert without_greedy.x_label == "Seconds per question"
