"""The table against counts made by hand."""

import numpy as np
import pytest

from iava.benchmarks.pope import CATEGORIES
from iava.benchmarks.registry import benchmark
from iava.metrics.results import best_controls, draws, rows_of


def record(image, category, number, method, question, truth, parsed, margin=0.0, **more):
    return {
        "id": f"{image}-{category}-{number}",
        "image": image,
        "split": "test",
        "category": category,
        "method": method,
        "question": question,
        "truth": truth,
        "text": parsed or "",
        "parsed": parsed,
        "yes": margin,
        "no": 0.0,
        "seconds": 0.5,
        **more,
    }


def answered(method, right, images=12):
    """A positive in all categories and a negative in each, an image; `right(image, category, truth)`: is it right?"""
    records = []
    for i in range(images):
        for category in CATEGORIES:
            for number, truth in enumerate(("yes", "no"), start=1):
                good = right(i, category, truth)
                parsed = truth if good else {"yes": "no", "no": "yes"}[truth]
                question = "there?" if truth == "yes" else f"{category}?"
                margin = (1 + i) * (1 if parsed == "yes" else -1)
                records.append(record(f"im{i:02}", category, number, method, question, truth, parsed, margin))
    return records


def table(*records, settings=None, seed=0):
    every = [r for some in records for r in some]
    names = dict.fromkeys(r["method"] for r in every)
    return rows_of(every, benchmark=benchmark("pope"), settings={name: {"x": name} for name in names}, seed=seed)


def pick(rows, method, category="overall"):
    return next(row for row in rows if (row["method"], row["category"]) == (method, category))


GREEDY = answered("greedy", lambda i, category, truth: truth == "yes" or category == "random")
BIAS = answered("bias", lambda i, category, truth: truth == "yes")
BETTER = answered("iava", lambda i, category, truth: truth == "yes" or category != "adversarial" or i < 6)


def test_metrics_and_intervals_by_category():
    rows = table(GREEDY, BIAS)
    assert [row["category"] for row in rows[::2]] == ["overall", *CATEGORIES]
    overall = pick(rows, "greedy")
    # 36 yes right, 12 of 36 no right.
    assert overall["n"] == 72
    assert overall["metrics"]["accuracy"] == pytest.approx(48 / 72)
    assert overall["metrics"]["precision"] == pytest.approx(36 / 60)
    assert overall["metrics"]["recall"] == 1.0
    assert overall["metrics"]["yes_ratio"] == pytest.approx(60 / 72)
    # Every image is alike, so drawing other images changes nothing.
    assert overall["intervals"]["accuracy"] == pytest.approx([48 / 72, 48 / 72])
    assert pick(rows, "greedy", "random")["metrics"]["accuracy"] == 1.0
    assert pick(rows, "greedy", "random")["metrics"]["auc"] == 1.0
    assert pick(rows, "bias", "popular")["metrics"]["accuracy"] == 0.5
    assert overall["settings"] == {"x": "greedy"}
    assert overall["seconds"] == 0.5


def test_methods_are_compared_with_the_best_control():
    rows = table(GREEDY, BIAS, BETTER)
    assert best_controls(rows) == {False: "greedy"}
    assert pick(rows, "greedy")["comparison"] is None
    ours = pick(rows, "iava")["comparison"]
    assert ours["control"] == "greedy"
    # 12 popular and 6 adversarial questions won, none lost.
    assert ours["difference"] == pytest.approx(18 / 72)
    assert ours["p"] == pytest.approx(2 * 0.5**18)
    theirs = pick(rows, "bias")["comparison"]
    assert theirs["difference"] == pytest.approx(-12 / 72)
    assert theirs["p_holm"] == pytest.approx(theirs["p"])
    assert ours["p_holm"] == pytest.approx(2 * ours["p"])
    in_random = pick(rows, "iava", "random")["comparison"]
    assert (in_random["control"], in_random["difference"], in_random["p"]) == ("greedy", 0.0, 1.0)


def test_a_method_that_draws_is_compared_with_a_control_that_draws():
    renamed = [{**r, "method": name} for name in ("sample", "vcd") for r in (BIAS if name == "sample" else BETTER)]
    records = [*renamed, *GREEDY, *BETTER]
    settings = {"sample": {}, "vcd": {"sampling": True}, "greedy": {}, "iava": {}}
    rows = rows_of(records, benchmark=benchmark("pope"), settings=settings, seed=0)
    # Methods that take the best token come first.
    assert [row["method"] for row in rows[:4]] == ["greedy", "iava", "sample", "vcd"]
    assert [row["draws"] for row in rows[:4]] == [False, False, True, True]
    assert best_controls(rows) == {False: "greedy", True: "sample"}
    assert pick(rows, "greedy")["comparison"] is pick(rows, "sample")["comparison"] is None
    assert pick(rows, "iava")["comparison"]["control"] == "greedy"
    drawn = pick(rows, "vcd")["comparison"]
    # Of 36 negatives the method has 30 right, and its control none.
    assert (drawn["control"], drawn["difference"]) == ("sample", pytest.approx(30 / 72))


def test_a_method_without_a_control_of_its_mode_is_not_compared():
    records = [*GREEDY, *({**r, "method": "vcd"} for r in BETTER)]
    settings = {"greedy": {}, "vcd": {"sampling": True}}
    rows = rows_of(records, benchmark=benchmark("pope"), settings=settings, seed=0)
    assert pick(rows, "vcd")["comparison"] is None


def test_recorded_settings_say_whether_a_method_draws():
    drawing = [("vcd", {"sampling": True}), ("apc", {}), ("sample", {"temperature": 0.5})]
    others = [("vcd", {}), ("greedy", {}), ("a variant of a study", {})]
    assert [draws(*one) for one in (*drawing, *others)] == [True] * 3 + [False] * 3


def test_a_positive_in_three_categories_is_one_piece_of_evidence():
    worse = answered("iava", lambda i, category, truth: i >= 6 or truth == "no")
    perfect = answered("greedy", lambda *_: True)
    comparison = pick(table(perfect, worse), "iava")["comparison"]
    assert comparison["difference"] == pytest.approx(-18 / 72)
    assert comparison["p"] == pytest.approx(2 * 0.5**6)


def test_errors_are_counted_and_left_out():
    broken = [record("im99", "random", 1, "greedy", "q", "yes", None, error="truncated") | {"yes": None, "no": None}]
    rows = table(GREEDY, broken)
    assert pick(rows, "greedy")["errors"] == 1
    assert pick(rows, "greedy")["n"] == 72
    assert pick(rows, "greedy", "popular")["errors"] == 0


def test_the_order_of_records_does_not_matter():
    mixed = [*GREEDY, *BETTER]
    np.random.default_rng(0).shuffle(mixed)
    settings = {"greedy": {}, "iava": {}}
    first, second = (
        rows_of(some, benchmark=benchmark("pope"), settings=settings, seed=3) for some in (mixed, [*GREEDY, *BETTER])
    )
    assert first == second


def test_without_a_control_nothing_is_compared():
    rows = table(BETTER)
    assert pick(rows, "iava")["comparison"] is None
