"""Rows of every benchmark against tables counted by hand."""

import json

import pytest

from iava.benchmarks import amber_words
from iava.benchmarks.registry import benchmark
from iava.metrics.results import rows_of
from iava.reporting.verdicts import remarks, verdicts


def record(image, category, number, method, truth, parsed, **more):
    return {
        "id": f"{image}-{category}-{number}",
        "image": image,
        "split": "test",
        "category": category,
        "method": method,
        "question": f"{category} {number}?",
        "truth": truth,
        "text": str(parsed),
        "parsed": parsed,
        "seconds": 0.5,
        **more,
    }


def yes_no(image, category, method, *right, truths=("yes", "no")):
    """A question for each truth, answered rightly or not, with a margin that says the same."""
    wrong = {"yes": "no", "no": "yes"}
    answers = [truth if good else wrong[truth] for truth, good in zip(truths, right, strict=True)]
    return [
        record(image, category, number, method, truth, said, yes=1.0 if said == "yes" else -1.0, no=0.0)
        for number, (truth, said) in enumerate(zip(truths, answers, strict=True), start=1)
    ]


def rows(name, records):
    settings = {name: {} for name in dict.fromkeys(r["method"] for r in records)}
    return {
        (row["category"], row["method"]): row
        for row in rows_of(records, benchmark=benchmark(name), settings=settings, seed=0)
    }


def test_mme_has_a_row_for_each_subtask_and_each_sum_that_is_whole():
    records = []
    for method, existence, count in (("greedy", (True, True), (True, False)), ("iava", (True, True), (True, True))):
        for i in range(6):
            records += yes_no(f"im{i}", "existence", method, *existence)
            records += yes_no(f"im{i}", "count", method, *(count if i < 4 else (True, True)))
    table = rows("mme", records)
    assert list(dict.fromkeys(category for category, _ in table)) == ["overall", "existence", "count"]
    count = table["count", "greedy"]
    assert count["n"] == 12
    # 8 of 12 questions, 2 of 6 images.
    assert count["metrics"] == pytest.approx({"acc": 8 / 12, "acc_plus": 2 / 6, "score": 100, "auc": 1 / 2 + 1 / 6})
    overall = table["overall", "greedy"]
    assert overall["metrics"]["score"] == pytest.approx(300)
    assert (overall["metrics"]["acc"], overall["metrics"]["acc_plus"]) == pytest.approx((20 / 24, 8 / 12))
    assert table["existence", "iava"]["intervals"]["score"] == [200, 200]
    comparison = table["overall", "iava"]["comparison"]
    assert (comparison["control"], comparison["metric"]) == ("greedy", "score")
    assert comparison["difference"] == pytest.approx(100)
    assert comparison["p"] == pytest.approx(2 * 0.5**4)
    low, high = comparison["interval"]
    assert 0 < low < 100 < high <= 150
    assert "In score, IAVA is 100.0 points above the best control (greedy)" in verdicts([table["overall", "iava"]])[0]


def test_mmes_sums_stand_where_all_their_subtasks_were_asked():
    records = [
        r for name in ("existence", "count", "position", "color") for r in yes_no("a", name, "greedy", True, False)
    ]
    table = rows("mme", records)
    assert table["hallucination", "greedy"]["metrics"]["score"] == 4 * 50
    assert ("perception", "greedy") not in table


def test_an_image_that_lost_a_question_has_no_accuracy_plus():
    records = yes_no("a", "count", "greedy", True, True) + yes_no("b", "count", "greedy", True, True)
    records[3]["error"] = "out of memory"
    row = rows("mme", records)["count", "greedy"]
    assert (row["n"], row["errors"]) == (3, 1)
    assert (row["metrics"]["acc"], row["metrics"]["acc_plus"]) == (1, 1)
    lone = rows("mme", [records[2]])["count", "greedy"]
    assert (lone["metrics"]["acc"], lone["metrics"]["acc_plus"], lone["metrics"]["score"]) == (1, None, None)
    assert "acc_plus" not in lone["intervals"]
    assert "NaN" not in json.dumps(lone)


def test_textvqa_counts_agreement_and_compares_by_the_sign_test():
    answers = ["stop"] * 3 + ["go"] * 2 + ["left"] * 5

    def said(method, *texts):
        return [record(f"im{i}", "textvqa", 1, method, answers, text, text=text) for i, text in enumerate(texts)]

    records = said("greedy", "go", "go", "go", "Stop!") + said("iava", "stop", "left", "go", "nothing")
    table = rows("textvqa", records)
    assert set(table) == {("overall", "greedy"), ("overall", "iava")}
    assert table["overall", "greedy"]["metrics"] == pytest.approx({"accuracy": (0.6 * 3 + 0.9) / 4})
    comparison = table["overall", "iava"]["comparison"]
    assert comparison["difference"] == pytest.approx((0.9 + 1 + 0.6 + 0) / 4 - (0.6 * 3 + 0.9) / 4)
    # Two won, one lost: 2 * P(at least 2 heads of 3).
    assert comparison["p"] == 1.0


def test_chair_and_that_less_of_it_is_better():
    def captions(method, wrong):
        return [
            record(f"im{i}", "caption", 1, method, ["cow", "dog"], ["cow", "bus"] if i < wrong else ["cow"])
            for i in range(12)
        ]

    table = rows("chair", captions("greedy", 12) + captions("iava", 2))
    greedy, ours = table["overall", "greedy"], table["overall", "iava"]
    assert greedy["metrics"] == pytest.approx({"chair_i": 0.5, "chair_s": 1, "recall": 0.5})
    assert ours["metrics"] == pytest.approx({"chair_i": 2 / 14, "chair_s": 2 / 12, "recall": 0.5})
    assert ours["comparison"]["difference"] == pytest.approx(-10 / 12)
    assert ours["comparison"]["p"] == pytest.approx(2 * 0.5**10)
    sentence = verdicts([ours])[0]
    assert sentence.startswith("In CHAIRs (lower is better), IAVA is 83.3 points below the best control (greedy)")
    assert sentence.endswith("it helps here.")
    assert verdicts([rows("chair", captions("greedy", 2) + captions("iava", 12))["overall", "iava"]])[0].endswith(
        "it does not help here."
    )


def test_the_control_with_the_lowest_chair_is_the_best():
    records = [
        record("a", "caption", 1, method, ["cow"], said)
        for method, said in (("greedy", ["bus"]), ("no-image", ["cow"]), ("iava", ["cow"]))
    ]
    assert rows("chair", records)["overall", "iava"]["comparison"]["control"] == "no-image"


def test_amber_by_kind_and_dimension_equals_its_scorer():
    annotations = amber_words.Annotations(
        {
            "1": amber_words.Annotation("generative", ("dog", "tree"), ("cat",)),
            "2": amber_words.Annotation("relation", "no"),
            "3": amber_words.Annotation("discriminative-attribute-state", "yes"),
        },
        {"dog": [], "tree": [], "cat": []},
        frozenset(),
    )
    responses = {"1": "A dog and a cat", "2": "No.", "3": "No."}
    parsed = {"1": amber_words.read(responses["1"], annotations.by_id["1"], annotations), "2": "no", "3": "no"}
    records = [
        record("im", one.type, name, "greedy", one.truth, parsed[name])
        | ({"yes": 0.0, "no": 1.0} if one.truth in ("yes", "no") else {})
        for name, one in annotations.by_id.items()
    ]
    table = rows("amber", records)
    expected = benchmark("amber").score(records)
    assert table["overall", "greedy"]["metrics"]["score"] == pytest.approx(expected["score"])
    for name, group in {
        "generative": expected["generative"],
        "discriminative": expected["discriminative"],
        **expected["dimensions"],
    }.items():
        row = table[name, "greedy"]
        assert row["n"] == group.pop("n")
        assert {key: row["metrics"][key] for key in group} == pytest.approx(group)
    assert len(table) == 3 + len(expected["dimensions"])
    told = rows("amber", records[:1])
    assert set(told) == {("overall", "greedy"), ("generative", "greedy")}
    assert told["overall", "greedy"]["main"] == "hal"


def test_what_must_be_said_beside_the_table():
    records = yes_no("a", "count", "greedy", True, True) + yes_no("b", "count", "greedy", True, True)
    records[0] |= {"error": "image file is truncated", "text": ""}
    records[1] |= {"text": " ", "parsed": None}
    records[2] |= {"text": "maybe", "parsed": None}
    assert remarks(records) == [
        "greedy: 1 of 4 questions got no answer and are left out; a-count-1: image file is truncated",
        "greedy: 1 of 4 answers are empty; a-count-2: ' '",
        "greedy: 1 of 4 answers are neither yes nor no and count as wrong; b-count-1: 'maybe'",
    ]
