"""MME's parser on edge cases and its scores on pairs counted by hand."""

import pytest

from iava.benchmarks.mme import SUBTASKS, check_subtask, first_letters, paired
from iava.benchmarks.registry import benchmark
from iava.benchmarks.task import Question


def pair(image, category="existence"):
    return [Question(image, (image,), category, f"{truth}?", truth) for truth in ("yes", "no")]


def score(questions, parsed):
    return benchmark("mme").score(
        [
            {"category": q.category, "image": q.image, "truth": q.truth, "parsed": said}
            for q, said in zip(questions, parsed, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("No.", "no"),
        ("no\n", "no"),
        ("not sure", "no"),
        ("I know", None),
        ("Yes, there is no doubt.", "yes"),
        ("There is no dog.", None),
        ("Eyes", "yes"),
        ("Is no", None),
        ("¿No?", "no"),
        ("«Yes»", "yes"),
        ("Yes。", "yes"),
        ("**Yes**", None),
        ("   Yes", None),
        ("是", None),
        ("", None),
    ],
)
def test_the_official_parser_looks_at_four_letters(text, expected):
    assert first_letters(text) == expected


def test_accuracy_counts_questions_and_accuracy_plus_images():
    # Image a: both right. b: one right. c: one right, one unparsed. d: none right.
    questions = [question for image in "abcd" for question in pair(image)]
    parsed = ["yes", "no", "yes", "yes", None, "no", "no", "yes"]
    result = score(questions, parsed)
    assert result["subtasks"] == {"existence": {"n": 8, "acc": 0.5, "acc_plus": 0.25, "score": 75.0}}
    assert (result["n"], result["unparsed"]) == (8, 0.125)
    assert (result["perception"], result["cognition"], result["hallucination"]) == (75.0, 0, 75.0)
    assert result["missing"] == list(SUBTASKS[1:])


def test_everything_right_reaches_the_highest_totals():
    questions = [question for name in SUBTASKS for question in pair("x", name)]
    result = score(questions, [question.truth for question in questions])
    assert (result["perception"], result["cognition"], result["hallucination"]) == (2000, 800, 800)
    assert result["missing"] == []
    assert len(SUBTASKS) == 14


def test_images_with_other_than_two_questions_are_refused():
    (a1, a2), (b1, b2) = pair("a"), pair("b")
    located = paired([("line 1", a1), ("line 2", b1), ("line 3", b2), ("line 4", a2)])
    assert [(where, question.id) for where, question in located] == [
        ("line 1", "a-1"),
        ("line 2", "b-1"),
        ("line 3", "b-2"),
        ("line 4", "a-2"),
    ]
    # The same name in another subtask is another image.
    paired([("1", a1), ("2", a2), ("3", pair("a", "OCR")[0]), ("4", pair("a", "OCR")[1])])
    with pytest.raises(ValueError, match="line 3: image b has one question"):
        paired([("line 1", a1), ("line 2", a2), ("line 3", b1)])
    with pytest.raises(ValueError, match="line 3: image a was asked this before"):
        paired([("line 1", a1), ("line 2", a2), ("line 3", a1)])
    third = Question("a", ("a",), "existence", "third?", "yes")
    with pytest.raises(ValueError, match="line 3: this is the third question about image a"):
        paired([("line 1", a1), ("line 2", a2), ("line 3", third)])
    with pytest.raises(ValueError, match="line 9: MME has no subtask 'colour'"):
        check_subtask("line 9", "colour")
