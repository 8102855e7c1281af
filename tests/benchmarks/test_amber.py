"""AMBER's numbers counted by hand on a small set of annotations."""

import json
import sys
import warnings
from importlib.util import find_spec

import pytest

from iava.benchmarks.amber_words import count, read_annotations, spacy_similarity
from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
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


def test_without_a_relation_file_it_is_refused(path):
    path.with_name("relation.json").unlink()
    with pytest.raises(IavaError, match=r"relation\.json is missing: AMBER's numbers are wrong without it"):
        score({"1": "A man, a person and a dog"}, path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("You can see the beach and the sea.", ["beach", "sea"]),
        ("A woman watches the sea.", ["woman", "sea"]),
        ("watches the sea", ["sea"]),
        ("A man. Watches the sea.", ["man", "sea"]),
        ("A woman sits and watches the sea.", ["woman", "sea"]),
        ("A woman that watches the sea.", ["woman", "sea"]),
        ("People watch the beach.", ["people", "beach"]),
        ("They park the car.", ["car"]),
        ("The car is about to park.", ["car"]),
        ("A man with a watch sits in the park.", ["man", "watch", "park"]),
        ("The watches are on a can.", ["watch", "can"]),
        ("Trash cans stand next to parks.", ["can", "park"]),
        ("An empty can.", []),
        ("Can you see the soda can?", ["can"]),
    ],
)
def test_modals_and_verbs_are_no_objects(path, text, named):
    words = ["beach", "sea", "woman", "watch", "people", "park", "car", "man", "can"]
    path.with_name("relation.json").write_text(json.dumps({word: [] for word in words}))
    path.with_name("safe_words.txt").write_text("")
    path.write_text(json.dumps([{"id": 1, "type": "generative", "truth": sorted(set(named)), "hallu": []}]))
    counted = score({"1": text}, path)["generative"]
    # Every word that is named is there, and nothing else is named.
    assert (counted["chair"], counted["cover"]) == (0, 1 if named else 0)


def test_similar_words_count_as_in_the_official_script(path):
    known = read_annotations(path)
    same = {("man", "dog"), ("leaf", "person"), ("car", "dog")}

    def similar(word, other):
        return word == other or (word, other) in same

    def counts(named, id):
        return count(named, known.by_id[id], known, similar)

    # Image 2 shows a dog, and a person may be imagined. "man" stands for the imagined person; it is similar to the dog,
    # so it is right and covers the dog. "leaf" is similar to the imagined person and to nothing that is there.
    assert counts(["man", "leaf"], "2") == {
        "named": 2,
        "wrong": 1,
        "objects": 1,
        "covered": 1,
        "imaginable": 1,
        "imagined": 1,
    }
    # Image 1: "car" may be imagined, and is similar to the imagined dog, which comes first; nothing like it is there.
    assert counts(["car", "light"], "1") == {
        "named": 2,
        "wrong": 1,
        "objects": 3,
        "covered": 0,
        "imaginable": 2,
        "imagined": 2,
    }


def test_the_official_pipeline_says_what_it_lacks(monkeypatch):
    with pytest.raises(IavaError, match="only --pipeline official uses one"):
        benchmark("amber", spacy_model="en_core_web_sm")
    with pytest.raises(IavaError, match="unknown pipeline 'best': use one of own, official"):
        benchmark("amber", pipeline="best")
    assert benchmark("amber", pipeline="official").settings() == {
        "pipeline": "official",
        "spacy_model": "en_core_web_lg",
    }
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(IavaError, match=r"needs spaCy: pip install 'iava\[amber\]'"):
        spacy_similarity("en_core_web_lg")


@pytest.mark.skipif(find_spec("spacy") is None, reason="spaCy is not installed: pip install 'iava[amber]'")
def test_a_spacy_model_that_is_missing_is_named(tmp_path):
    with pytest.raises(IavaError, match="spaCy has no model 'none': python -m spacy download en_core_web_lg"):
        spacy_similarity("none")


@pytest.mark.skipif(find_spec("spacy") is None, reason="spaCy is not installed: pip install 'iava[amber]'")
def test_words_are_similar_if_their_vectors_have_a_cosine_above_08(tmp_path):
    import numpy as np
    import spacy

    pipeline = spacy.blank("en")
    for word, vector in {"dog": [1, 0], "puppy": [0.9, 0.4], "cat": [0.6, 0.8]}.items():
        pipeline.vocab.set_vector(word, np.array(vector, dtype="float32"))
    pipeline.to_disk(tmp_path / "model")
    similar = spacy_similarity(str(tmp_path / "model"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Cosines: 0.914, 0.6 and 0.873; a word without a vector is like no other.
        found = [similar(*pair) for pair in (("dog", "puppy"), ("dog", "cat"), ("puppy", "cat"), ("dog", "xyzzy"))]
    assert found == [True, False, True, False]


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
