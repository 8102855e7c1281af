"""Groups: a limit, a shard and an interval never separate the questions of one group."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.benchmarks.task import Question, Task, by_group, first_groups, shard
from iava.metrics.results import rows_of
from iava.metrics.stats import bootstrap


def pair(number, **more):
    """One question about two images; a method must tell them apart."""
    return [
        Question(f"{number}{side}", (f"{number}{side}.jpg",), "pairs", f"{number}?", truth, group=str(number), **more)
        for side, truth in (("a", "yes"), ("b", "no"))
    ]


def task(*pairs):
    return Task("pairs", "test", [question for number in pairs for question in pair(number)], lambda _: None)


def test_the_default_group_is_the_image():
    assert Question("1", ("x.jpg",), "c", "?", "yes").group == "x.jpg"
    assert Question("1", ("x.jpg", "y.jpg"), "c", "?", "yes").group == "x.jpg + y.jpg"
    assert Question("1", (), "c", "?", "yes").group == "1"
    assert Question("1", ("x.jpg",), "c", "?", "yes").extras == {}
    assert pair(1)[0].extras == {"group": "1"}


def test_a_limit_and_a_shard_take_whole_groups():
    some = task(1, 2, 3, 4, 5)
    assert [q.id for q in first_groups(some, 2).questions] == ["1a", "1b", "2a", "2b"]
    parts = [shard(some, number, 2) for number in (1, 2)]
    assert [[q.id for q in part.questions] for part in parts] == [
        ["1a", "1b", "3a", "3b", "5a", "5b"],
        ["2a", "2b", "4a", "4b"],
    ]
    assert first_groups(some, 1).images == ["1a.jpg", "1b.jpg"]


def test_questions_are_asked_together_that_share_group_and_image():
    (one, other), (third, _) = pair(1), pair(2)
    again = replace(one, id="1c", question="else?")
    mixed = Task("pairs", "test", by_group([one, third, other, again]), lambda _: None)
    assert [q.id for q in mixed.questions] == ["1a", "1b", "1c", "2a"]
    assert {unit: [q.id for q in some] for unit, some in mixed.units.items()} == {
        ("1", "1a.jpg"): ["1a", "1c"],
        ("1", "1b.jpg"): ["1b"],
        ("2", "2a.jpg"): ["2a"],
    }


def test_a_digest_changes_with_groups_and_choices():
    plain = Task("pairs", "test", [Question("1", ("x",), "c", "?", "yes")], lambda _: None)
    grouped = replace(plain, questions=[Question("1", ("x",), "c", "?", "yes", group="g")])
    choices = replace(plain, questions=[Question("1", ("x",), "c", "?", "yes", choices=("yes", "no"))])
    assert len({plain.digest, grouped.digest, choices.digest}) == 3


def records(method, right):
    """A record for each question of twenty groups; `right(number, side)`: is it right?"""
    wrong = {"yes": "no", "no": "yes"}
    return [
        {"id": q.id, "image": q.image, "split": "test", "category": "random", "method": method, "question": q.question}
        | {"truth": q.truth, "text": "", "seconds": 1.0, **q.extras}
        | {"parsed": q.truth if right(number, q.id[-1]) else wrong[q.truth]}
        for number in range(20)
        for q in pair(number)
    ]


def test_intervals_and_p_values_count_groups():
    # Greedy is wrong on both questions of eight groups; the other method is always right.
    greedy, ours = records("greedy", lambda number, _: number >= 8), records("iava", lambda *_: True)
    rows = rows_of(greedy + ours, benchmark=benchmark("pope"), settings={"greedy": {}, "iava": {}}, seed=0)
    overall = {row["method"]: row for row in rows if row["category"] == "overall"}
    groups = [str(number) for number in sorted(range(20), key=lambda n: f"{n}a.jpg") for _ in "ab"]
    right = np.array([[int(group) >= 8, 1.0] for group in groups], dtype=float)
    expected = bootstrap(right, groups, lambda sums: sums[:, 0] / sums[:, 1], seed=0)
    assert overall["greedy"]["intervals"]["accuracy"] == pytest.approx(expected)
    # Sixteen questions differ, but they are eight groups: 2 * (1/2)^8.
    assert overall["iava"]["comparison"]["p"] == pytest.approx(2 * 0.5**8)


@pytest.mark.slow
def test_names_of_benchmarks_come_without_torch():
    code = (
        "import sys; from iava.benchmarks.registry import BENCHMARKS; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_states_its_contract(name):
    one = benchmark(name)
    assert one.name == name
    assert one.source
    assert one.max_new_tokens >= 1
    assert one.asks_yes_no == ("word" in one.parsers)
