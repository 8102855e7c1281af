"""EvalAI's way of making answers alike, case by case, and the accuracy counted by leaving one out."""

from itertools import combinations

import pytest

from iava.benchmarks.textvqa import accuracy, normalize, ten_answers


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Dog", "dog"),
        ("a an the", ""),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont walk", "don't walk"),
        ("COULDNT'VE", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
        ("well", "well"),
        # The possessive is split off before contractions are looked up.
        ("Levi's", "levi 's"),
        ("it's", "it 's"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("no.", "no"),
        ("u.s.a.", "usa"),
        ("v.2", "v.2"),
        ("what?", "what"),
        # A mark between letters becomes a blank, one beside a blank vanishes everywhere.
        ("coca-cola", "coca cola"),
        ("coca-cola - zero", "cocacola 0"),
        ("(bus)", "bus"),
        ("a/b", "b"),
        ("10:30", "10:30"),
        ("$5", "$5"),
        ("line\none\tday", "line 1 day"),
        ("  ", ""),
        ("", ""),
        ("出口。", "出口。"),
        ("¿qué?", "¿qué"),
    ],
)
def test_normalize(answer, expected):
    assert normalize(answer) == expected


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_accuracy_of_so_many_matches(matches, expected):
    answers = ["Stop!"] * matches + ["go"] * (10 - matches)
    assert accuracy("the stop", answers) == pytest.approx(expected)
    by_nine = [min(1, sum(a == "Stop!" for a in nine) / 3) for nine in combinations(answers, 9)]
    assert accuracy("stop.", answers) == pytest.approx(sum(by_nine) / 10)


def test_nothing_said_is_wrong_and_nine_answers_are_refused():
    assert accuracy("", ["stop"] * 10) == 0
    with pytest.raises(ValueError, match="line 3: there are 9 answers"):
        ten_answers("line 3", ["stop"] * 9)
