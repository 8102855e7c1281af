"""Tables hold the values of the results rows, for any metric."""

import pytest

from iava.reporting.tables import category_tables, summary_table


def row(method, category, metrics, comparison=None, **more):
    intervals = {name: [value - 0.01, value + 0.02] for name, value in metrics.items() if value is not None}
    return {
        "benchmark": "any",
        "split": "test",
        "category": category,
        "method": method,
        "n": 40,
        "errors": 0,
        "metrics": metrics,
        "intervals": intervals,
        "seconds": 0.5,
        "settings": {},
        "draws": False,
        "comparison": comparison,
        **more,
    }


def cells(table):
    return {row.name: [cell.text for cell in row.cells] for row in table.rows}


def test_unknown_metrics_and_points_have_columns():
    rows = [
        row("greedy", "count", {"acc": 0.7, "acc_plus": 0.5, "score": 120.0}),
        row("iava", "count", {"acc": 0.8, "acc_plus": 0.25, "score": 105.0, "odd_one": None}),
        row("greedy", "hallucination", {"score": 620.0}),
        row("iava", "hallucination", {"score": 640.0}),
    ]
    (_, count), (_, sums) = category_tables(rows)
    assert list(count.headings) == ["Score", "Acc", "Acc+", "Odd one", "Seconds"]
    assert cells(count) == {
        "greedy": ["120.0", "70.0", "50.0", "", "0.500"],
        "IAVA": ["105.0", "80.0", "25.0", "–", "0.500"],
    }
    assert list(sums.headings) == ["Score", "Seconds"]
    assert count.axis == sums.axis
    table = summary_table(rows)
    assert table.title == "Score by category"
    assert list(table.headings) == ["Count", "Hallucination"]
    assert cells(table) == {"greedy": ["120.0", "620.0"], "IAVA": ["105.0", "640.0"]}


def test_comparison_cost_and_whiskers():
    comparison = {"control": "greedy", "difference": -0.1, "interval": [-0.2, 0.05], "p": 0.01, "p_holm": 0.02}
    rows = [
        row("greedy", "overall", {"accuracy": 0.9, "unparsed": 0.0}),
        row("iava", "overall", {"accuracy": 0.8, "unparsed": 0.0}, comparison, seconds=1.25),
    ]
    [(_, table)] = category_tables(rows)
    assert list(table.headings) == ["Accuracy", "vs best control", "p (Holm)", "Seconds"]
    greedy, ours = table.rows
    assert [cell.text for cell in ours.cells] == ["80.0", "-10.0", "0.020", "1.250"]
    assert [cell.note for cell in ours.cells] == ["[79.0, 82.0]", "[-20.0, +5.0]", "", "× 2.50"]
    assert [cell.value for cell in ours.cells] == [0.8, -0.1, 0.02, 1.25]
    assert [cell.text for cell in greedy.cells][1:3] == ["best control", ""]
    assert (greedy.tag, greedy.highlighted, ours.tag, ours.highlighted) == ("control", False, "", True)
    # The axis runs from 78 to 93 %.
    assert table.axis == ("78.0", "93.0")
    assert ours.whisker == pytest.approx((100 * 1 / 15, 100 * 2 / 15, 100 * 4 / 15), abs=0.3)
