"""MMVP's files as published, and its numbers against pairs counted by hand."""

import json

import pytest
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.predictions import score_file
from iava.evaluation.runner import evaluate
from tests.fakes import FakeLVLM

ROWS = [
    ("1", "Are the eyes open?", "(a) Open (b) Closed", "(a)"),
    ("2", "Are the eyes open?", "(a) Open (b) Closed", "(b)"),
    ("3", "Which side?", "(a) The left (b) The right", "(b)"),
    ("4", "Which side?", "(a) The left (b) The right", "(a)"),
]


def write(folder, rows=ROWS):
    images = folder / "mmvp" / "MMVP Images"
    images.mkdir(parents=True, exist_ok=True)
    for number, *_ in ROWS:
        Image.new("RGB", (8, 8), (20 * int(number), 0, 0)).save(images / f"{number}.jpg")
    lines = ["Index,Question,Options,Correct Answer", *(",".join(row) for row in rows)]
    (folder / "mmvp" / "Questions.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_questions_and_pairs(tmp_path):
    task = benchmark("mmvp").load(write(tmp_path) / "mmvp")
    assert [(q.id, q.image, q.truth, q.choices, q.group) for q in task.questions] == [
        ("1", "1.jpg", "a", ("Open", "Closed"), "pair 1"),
        ("2", "2.jpg", "b", ("Open", "Closed"), "pair 1"),
        ("3", "3.jpg", "b", ("The left", "The right"), "pair 2"),
        ("4", "4.jpg", "a", ("The left", "The right"), "pair 2"),
    ]
    assert task.open_image("3.jpg").size == (8, 8)
    # As scripts/evaluate_mllm.py and lmms-eval put it.
    asked, first = benchmark("mmvp").prompt, task.questions[0]
    assert asked(first, "plain") == "Are the eyes open? (a) Open (b) Closed"
    assert asked(first, "lmms-eval") == (
        "Are the eyes open?\nA. Open\nB. Closed\nAnswer with the option's letter from the given choices directly."
    )


def test_a_pair_counts_if_both_answers_are_right(tmp_path):
    said = {"1": "(a) Open", "2": "Closed", "3": "(b)", "4": "(b)", "5": "both", "6": "(a)"}
    rows = [*ROWS, ("5", "Up?", "(a) Up (b) Down", "(a)"), ("6", "Up?", "(a) Up (b) Down", "(b)")]
    lines = [
        json.dumps({"question_id": int(n), "prompt": f"{q} {o}", "answer": a, "response": said[n]})
        for n, q, o, a in rows
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(lines))
    # Right: 1, 2, 3. Whole pairs: the first of three. "both" names no choice.
    assert score_file("mmvp", path)[0] == {
        "benchmark": "mmvp",
        "parser": "choice",
        "n": 6,
        "pair_accuracy": pytest.approx(1 / 3),
        "accuracy": 0.5,
        "unparsed": pytest.approx(1 / 6),
    }


def test_a_limit_takes_whole_pairs(tmp_path):
    plan = Plan("fake", {"greedy": {}, "iava": {}}, benchmark="mmvp", data=write(tmp_path / "data"), limit=1)
    results = evaluate(FakeLVLM(), plan, tmp_path / "run")
    assert {row["n"] for row in results["rows"]} == {2}
    assert {row["main"] for row in results["rows"]} == {"pair_accuracy"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("1", "Open?", "(a) Open", "(a)"), r"line 2: there are no choices in '\(a\) Open'"),
        (("1", "Open?", "(a) Open (b) Closed", "(c)"), r"line 2: the answer is '\(c\)': it must be one of the choices"),
        (("0", "Open?", "(a) Open (b) Closed", "(a)"), "line 2: the number of the question is '0'"),
        (("1", "Open?", "(a) Open (b) Closed"), "line 2: the row has not as many columns as the heading"),
    ],
)
def test_broken_rows(tmp_path, row, words):
    with pytest.raises(IavaError, match=words):
        benchmark("mmvp").load(write(tmp_path, [row]) / "mmvp")
