"""Places in the drawings, and labels that do not cover each other."""

from itertools import pairwise

import pytest

from iava.metrics.shift import bias_curve
from iava.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, cost_chart, yes_chart
from tests.reporting.test_tables import row


def rows(*values):
    methods = ("greedy", "apc", "bias", "iava", "sample")
    return [
        row(method, "overall", {"accuracy": accuracy, "yes_ratio": said}, seconds=seconds)
        for method, (accuracy, said, seconds) in zip(methods, values, strict=False)
    ]


def test_points_lie_where_the_ticks_say():
    chart = yes_chart(rows((0.9, 0.5, 1.0), (0.8, 0.6, 1.0)), None, 0.5)
    across = {float(text): x for x, text in chart.ticks_across}
    up = {float(text): y for y, text in chart.ticks_up}
    greedy, apc = chart.points
    assert (greedy.x, greedy.y) == pytest.approx((across[50], up[90]), abs=0.2)
    assert (apc.x, apc.y) == pytest.approx((across[60], up[80]), abs=0.2)
    assert chart.middle == greedy.x
    assert greedy.left < greedy.x < greedy.right
    assert greedy.high < greedy.y < greedy.low
    assert chart.curve == ""
    for ticks in (chart.ticks_across, chart.ticks_up):
        assert 3 <= len(ticks) <= 7
    assert all(LEFT <= x <= RIGHT for x in across.values())
    assert all(TOP <= y <= BOTTOM for y in up.values())


def test_labels_stand_apart_and_inside():
    same = yes_chart(rows(*[(0.8, 0.5, 1.0)] * 5), None, None)
    places = sorted(point.label_y for point in same.points)
    assert all(b - a >= 16.8 for a, b in pairwise(places))
    assert places[0] >= TOP - 1
    assert places[-1] <= BOTTOM + 1


def test_the_curve_ends_at_greedy_with_no_bias():
    margins, truths = [2.0, 1.0, 0.5, -0.5, -1.0, -2.0], ["yes", "yes", "no", "yes", "no", "no"]
    chart = yes_chart(rows((4 / 6, 0.5, 1.0), (0.5, 1 / 6, 1.0)), bias_curve(margins, truths), 0.5)
    places = [tuple(map(float, place.split())) for place in chart.curve[1:].split("L")]
    greedy = chart.points[0]
    assert min(abs(x - greedy.x) + abs(y - greedy.y) for x, y in places) < 0.5
    assert [x for x, _ in places] == sorted(x for x, _ in places)


def test_cost_is_told_in_times_of_greedy():
    chart = cost_chart(rows((0.9, 0.5, 0.2), (0.8, 0.6, 0.5)))
    assert chart.across == "Time a question, times greedy"
    ticks = {float(text): x for x, text in chart.ticks_across}
    assert chart.points[1].x == pytest.approx(ticks[2.5] if 2.5 in ticks else (ticks[2] + ticks[3]) / 2, abs=30)
    assert chart.points[0].x == pytest.approx(ticks[1], abs=0.2)
    alone = cost_chart(rows((0.9, 0.5, 0.2), (0.8, 0.6, 0.5))[1:])
    assert alone.across == "Seconds a question"
