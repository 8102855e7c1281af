"""AMBER's numbers counted by hand on a small set of annotations."""

import json

import pytest

from iava.benchmarks.amber import read_annotations
from iava.evaluation.predictions import score_file

RELATION = {
    "person": ["man", "woman"],
    "forest": ["tree"],
    "tree": ["forest", "leaf"],
    "dog": [],
    "car": ["tire"],
    "light": [],
}
ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["forest", "tree", "person"], "hallu": ["dog", "car"]},
    {"id": 2, "type": "generative", "truth": ["dog"], "hallu": ["person"]},
    {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 4, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 5, "type": "discriminative-attribute-number", "truth": "no"},
    {"id": 6, "type": "discriminative-attribute-action", "truth": "no"},
    {"id": 7, "type": "discriminative-relation", "truth": "yes"},
    {"id": 8, "type": "relation", "truth": "no"},
]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "relation.json").write_text(json.dumps(RELATION))
    (tmp_path / "safe_words.txt").write_text("light\norange")
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(ANNOTATIONS))
    return file


def score(responses, annotations, parser=None):
    answers = annotations.with_name("answers.jsonl")
    lines = [json.dumps({"id": name, "response": text}) for name, text in responses.items()]
    answers.write_text("\n".join(lines))
    return score_file("amber", answers, parser=parser, files={"annotations": annotations})[0]


def test_descriptions_counted_by_hand(path):
    responses = {
        # Object words: men, trees, tires, lights. Wrong: tires (the imagined car). Named: the person; "tree" is taken
        # as the forest, with which it is associated, so that the tree itself stays unnamed.
        "1": "Two men under trees; tires and lights. A road.",
        # Object words: Dogs, dog. Nothing wrong.
        "2": "Dogs. One dog runs.",
    }
    result = score(responses, path)
    expected = {"n": 2, "chair": 1 / 6, "cover": 3 / 4, "hal": 1 / 2, "cog": 1 / 3}
    assert result["generative"] == pytest.approx(expected)
    assert (result["discriminative"], result["dimensions"], result["score"]) == (None, {}, None)


def test_no_is_the_positive_class(path):
    responses = {"3": "No.", "4": "No", "5": "Yes", "6": "no", "7": "Yes, there is no doubt", "8": "No"}
    result = score(responses, path)
    # No was said to 3, 4, 6, 8, rightly to three of them; no is true of 3, 5, 6, 8.
    assert result["discriminative"] == pytest.approx(
        {"n": 6, "accuracy": 0.5, "precision": 0.75, "recall": 0.75, "f1": 0.75, "no_ratio": 4 / 6, "unparsed": 1 / 6}
    )
    assert {name: group["n"] for name, group in result["dimensions"].items()} == {
        "existence": 1,
        "attribute": 3,
        "state": 1,
        "number": 1,
        "action": 1,
        "relation": 2,
    }
    assert result["dimensions"]["relation"]["recall"] == 1
    # "No." is no exact answer.
    assert score(responses, path, "exact")["discriminative"]["recall"] == pytest.approx(0.5)


def test_the_score_joins_both(path):
    result = score({"1": "A man and a dog", "3": "No", "5": "Yes"}, path)
    # CHAIR 50; precision 1, recall 1/2, F1 66.7.
    assert result["score"] == pytest.approx((100 - 50 + 200 / 3) / 2)


def test_without_a_relation_file_the_annotated_words_count(path):
    path.with_name("relation.json").unlink()
    result = score({"1": "A man, a person and a dog"}, path)
    assert result["generative"] == pytest.approx({"n": 1, "chair": 1 / 2, "cover": 1 / 3, "hal": 1, "cog": 1 / 2})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "must be a list of annotations"),
        ([1], "entry 1: this must be an object"),
        ([ANNOTATIONS[0], ANNOTATIONS[0]], "entry 2: id 1 was there before"),
        ([{"id": 1, "type": "poem", "truth": "no"}], "entry 1: unknown type 'poem'"),
        ([{"id": 1, "type": "relation", "truth": "maybe"}], "entry 1: 'truth' is 'maybe': it must be yes or no"),
        ([{"id": 1, "type": "generative", "truth": ["a"]}], "entry 1: 'hallu' is missing"),
    ],
)
def test_broken_annotations(path, rows, words):
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=words):
        read_annotations(path)
