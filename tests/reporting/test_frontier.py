"""The charts of a frontier: curves pass through the settings, areas hold the curves, ticks say where they lie."""

import re

import pytest

from iava.reporting.charts import BOTTOM, LEFT, RIGHT, TOP
from iava.reporting.frontier import _charts, distances_table, settings_table
from tests.evaluation.test_frontier import frontier, runs  # noqa: F401


def pixels(path):
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.rstrip("Z"))[1:]]


def test_curves_pass_through_the_settings_and_ticks_say_where(runs):  # noqa: F811
    by_recall, by_length = _charts(frontier(runs), "vcd")
    assert (by_recall.y_label, by_length.y_label) == ("Recall, %", "Things named per caption")
    assert [point.label for point in by_recall.points] == ["0.5", "2.0"]
    x_of, y_of = ({float(text): place for place, text in ticks} for ticks in (by_recall.x_ticks, by_length.y_ticks))
    assert [point.x for point in by_recall.points] == pytest.approx([_at(x_of, 25), _at(x_of, 50)], abs=0.3)
    assert [point.y for point in by_length.points] == pytest.approx([_at(y_of, 2), _at(y_of, 3)], abs=0.3)
    # Both settings have one recall, so that only their lengths make a curve.
    assert by_recall.own == ""
    own = pixels(by_length.own)
    for point in by_length.points:
        assert min(abs(x - point.x) + abs(y - point.y) for x, y in own) < 0.3
    for chart in (by_recall, by_length):
        curve = pixels(chart.curve)
        assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in curve)
        assert len(pixels(chart.band)) == 2 * len(curve)
    # The frontier of the controls reaches from the dog alone, without an error, to all things, half of them wrong.
    (_, bottom), (right, top) = pixels(by_recall.curve)[0], pixels(by_recall.curve)[-1]
    assert right == pytest.approx(_at(x_of, 50), abs=0.3)
    assert top < bottom


def _at(places, value):
    """Where a value stands, from two ticks of its axis."""
    (first, at_first), (second, at_second) = list(places.items())[:2]
    return at_first + (value - first) / (second - first) * (at_second - at_first)


def test_tables_have_a_row_for_each_setting(runs):  # noqa: F811
    found = frontier(runs)
    settings, distances = settings_table(found), distances_table(found)
    assert [(row.name, row.tag) for row in settings.rows] == [
        ("token limit tokens=5", "control"),
        ("token limit tokens=50", "control"),
        ("VCD alpha=0.5", ""),
        ("VCD alpha=2.0", ""),
    ]
    assert [cell.text for cell in settings.rows[1].cells] == ["50.0", "100.0", "66.7", "4.0", "10.0", "1"]
    first = distances.rows[0].cells
    assert (first[0].text, first[2].text) == ("-15.0", "50% token limit tokens=5 + 50% token limit tokens=50")
