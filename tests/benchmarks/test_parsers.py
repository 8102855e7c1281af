"""Parsers on edge cases. The readings of pope, opera and vcd are those of the authors' scripts on the same texts."""

import pytest

from iava.benchmarks import parsers
from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.benchmarks.task import Question
from iava.errors import IavaError


def question(truth, **more):
    return Question("1", ("x.jpg",), "random", "?", truth, **more)


@pytest.mark.parametrize(
    # vcd: whether the answer counts as right where the truth is yes, and where it is no.
    ("text", "word", "pope", "opera", "exact", "vcd"),
    [
        ("Yes", "yes", "yes", "yes", "yes", (True, False)),
        (" no ", "no", "no", "no", "no", (False, True)),
        ("No.", "no", "no", "no", None, (False, True)),
        ("NO", "no", "yes", "no", "no", (False, True)),
        ("Yes, there is a snowboard in the image.", "yes", "yes", "yes", None, (True, True)),
        ("There is a dog in the image.", None, "yes", "yes", None, (False, False)),
        ("The image does not contain a dog.", None, "no", "no", None, (False, True)),
        ("Yes. However, there is no second dog.", None, "yes", "no", None, (True, True)),
        ("There isn't a dog.", None, "yes", "no", None, (False, False)),
        ("Yes, there is no doubt.", None, "no", "no", None, (True, True)),
        ("I know it.", None, "yes", "yes", None, (False, True)),
        ("not sure", None, "no", "no", None, (False, True)),
        ("No-one.", None, "yes", "yes", None, (False, True)),
        ("Nothing.", None, "yes", "yes", None, (False, True)),
        ("eyes", None, "yes", "yes", None, (True, False)),
        ("**Yes**", "yes", "yes", "yes", None, (True, False)),
        ("**No**", "no", "yes", "yes", None, (False, True)),
        ("“Yes”", "yes", "yes", "yes", None, (True, False)),
        ("Yes:", "yes", "yes", "yes", None, (True, False)),
        ("No:", "no", "yes", "yes", None, (False, True)),
        ("No。", "no", "yes", "yes", None, (False, True)),
        ("no\nyes", None, "yes", "yes", None, (True, True)),
        ("", None, "yes", "yes", None, (False, False)),
    ],
)
def test_readings_of_yes_and_no(text, word, pope, opera, exact, vcd):
    for truth, right in zip(("yes", "no"), vcd, strict=True):
        asked = question(truth)
        found = {name: parser(text, asked) for name, parser in parsers.YES_NO.items()}
        expected = truth if right else {"yes": "no", "no": "yes"}[truth]
        assert found == {"word": word, "pope": pope, "opera": opera, "exact": exact, "vcd": expected}


def test_amber_counts_the_literal_words_only():
    official = benchmark("amber").parsers["official"]
    said = ("Yes", "No", "No.", "yes", " Yes", "")
    assert [official(text, question("no")) for text in said] == ["yes", "no", None, None, None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a)", "a"),
        ("(B) Closed", "b"),
        ("b", "b"),
        ("B.", "b"),
        ("A: Open", "a"),
        ("The answer is (b).", "b"),
        ("Answer: A", "a"),
        ("Option B", "b"),
        ("Open", "a"),
        ("The eyes are closed.", "b"),
        ("A dog with closed eyes.", "b"),
        ("They are open, not closed.", None),
        ("(a) or (b)", None),
        ("Opened wide", None),
        ("c", None),
        ("", None),
    ],
)
def test_a_choice_is_read_by_its_letter_or_else_by_its_words(text, expected):
    assert parsers.choice(text, question("a", choices=("Open", "Closed"))) == expected


def test_the_default_is_the_word_parser_where_the_benchmark_has_none_of_its_own():
    asking = [name for name in BENCHMARKS if benchmark(name).asks_yes_no]
    assert {benchmark(name).parser_name(None) for name in asking if name != "mme"} == {"word"}
    assert benchmark("mme").parser_name(None) == "official"
    assert all(parser in parsers.NOTES for name in BENCHMARKS for parser in benchmark(name).parsers)


def test_what_replaces_substring_is_named():
    with pytest.raises(IavaError, match=r"the parser substring is gone, .*: use pope, opera or vcd"):
        benchmark("pope").parser_name("substring")
    with pytest.raises(IavaError, match="unknown parser 'vague' for pope: use one of word, pope, opera, vcd, exact"):
        benchmark("pope").parser_name("vague")
