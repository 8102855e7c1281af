"""POPE's questions against definitions spelled out by hand, metrics on a counted table."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from iava.benchmarks.pope import CATEGORIES, build_questions, fair_region, wording
from iava.benchmarks.sources.pocket import pocket
from iava.benchmarks.yes_no import COUNTS, rates, tally
from iava.pocket.scenes import load_scene
from iava.pocket.world import OBJECT_CLASSES

FARM = {"cow", "tractor", "dog"}
OBJECTS = {
    "a": FARM,
    "b": {"cow", "tractor", "pig"},
    "c": {"cow", "pig"},
    "d": {"cup", "apple", "dog"},
    "e": {"cup", "dog", "pizza", "apple"},
    "f": {"pizza"},
    "g": {"umbrella", "cup"},
}


def asked(questions, image, category, truth):
    return [q.question for q in questions if (q.image, q.category, q.truth) == (image, category, truth)]


def test_popular_negatives_are_the_most_frequent_absent_kinds():
    # Frequencies: cow 3, dog 3, cup 3, tractor 2, pig 2, apple 2, pizza 2, umbrella 1; equal ones by name.
    questions = build_questions(OBJECTS, seed=0)
    expected = [wording(kind) for kind in ("cup", "apple", "pig")]
    assert asked(questions, "a", "popular", "no") == expected


def test_adversarial_negatives_are_those_that_keep_company_with_what_is_there():
    # With cow, tractor, dog: pig 3 (cow twice, tractor once), cup and apple 2 (dog; cup is more frequent).
    questions = build_questions(OBJECTS, seed=0)
    expected = [wording(kind) for kind in ("pig", "cup", "apple")]
    assert asked(questions, "a", "adversarial", "no") == expected


def test_half_yes_half_no_with_the_same_positives_in_every_category():
    questions = build_questions(OBJECTS, seed=3)
    for image, category in product(OBJECTS, CATEGORIES):
        k = min(3, len(OBJECTS[image]))
        positives, negatives = (asked(questions, image, category, truth) for truth in ("yes", "no"))
        assert len(positives) == len(negatives) == k
        assert positives == asked(questions, image, "random", "yes")
        assert set(positives) <= {wording(kind) for kind in OBJECTS[image]}
        assert not set(negatives) & {wording(kind) for kind in OBJECTS[image]}
        assert len(set(negatives)) == k


def test_random_negatives_are_uniform_among_the_absent():
    counts = Counter(
        question
        for seed in range(600)
        for question in asked(build_questions(OBJECTS, per_image=1, seed=seed), "a", "random", "no")
    )
    assert set(counts) == {wording(kind) for kind in ("pig", "cup", "apple", "pizza", "umbrella")}
    assert max(abs(count - 120) for count in counts.values()) < 4 * np.sqrt(600 * 0.2 * 0.8)


def test_articles():
    assert wording("umbrella") == "Is there an umbrella in the image?"
    assert wording("apple") == "Is there an apple in the image?"
    assert wording("cow") == "Is there a cow in the image?"


def test_an_image_that_shows_everything_is_refused():
    with pytest.raises(ValueError, match="image a lacks 0 of 3 kinds"):
        build_questions({"a": FARM}, seed=0)
    with pytest.raises(ValueError, match="per_image is 0"):
        build_questions(OBJECTS, per_image=0, seed=0)


def test_pocket_questions_are_true_unique_and_the_same_under_a_limit():
    few, more = pocket("pope", "tune", 3), pocket("pope", "tune", 5)
    assert more.questions[: len(few.questions)] == few.questions
    assert len({q.image for q in few.questions}) == 3
    assert few.questions[0].id == "tune-00000-random-1"
    ids = [q.id for q in pocket("pope", "tune").questions]
    assert len(set(ids)) == len(ids)
    kind_of = {wording(kind): kind for kind in OBJECT_CLASSES}
    for question in more.questions:
        present = kind_of[question.question] in load_scene("tune", int(question.image[-5:])).names
        assert question.truth == ("yes" if present else "no")
    assert more.open_image("tune-00001").tobytes() == load_scene("tune", 1).render().tobytes()


@pytest.mark.slow
def test_the_region_of_what_is_absent_is_that_of_a_random_present_thing():
    kind_of = {wording(kind): kind for kind in OBJECT_CLASSES}
    shown = set()
    for question in pocket("pope", "tune", 40).questions:
        scene, kind = load_scene("tune", int(question.image[-5:])), kind_of[question.question]
        assert question.region == fair_region(scene, kind)
        if question.truth == "yes":
            assert question.region == tuple(scene.boxes(kind))
            continue
        owner = [name for name in sorted(scene.names) if tuple(scene.boxes(name)) == question.region]
        assert len(owner) == 1
        shown.add(sorted(scene.names).index(owner[0]))
    assert {0, 1, 2} <= shown


def test_pocket_refuses_what_it_does_not_have():
    with pytest.raises(ValueError, match="unknown split 'val': use one of tune, tune-heldout, test, test-heldout"):
        pocket("pope", "val")
    with pytest.raises(ValueError, match="limit is 0"):
        pocket("pope", "tune", 0)


def test_metrics_of_a_table_counted_by_hand():
    # Truth yes: 3 said yes, 1 no, 1 unparsed. Truth no: 2 said yes, 3 no.
    truths = ["yes"] * 5 + ["no"] * 5
    parsed = ["yes", "yes", "yes", "no", None, "yes", "yes", "no", "no", "no"]
    metrics = rates(tally(truths, parsed).sum(axis=0))
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {"accuracy": 0.6, "precision": 0.6, "recall": 0.6, "f1": 0.6, "yes_ratio": 0.5, "unparsed": 0.1}
    )


def test_metrics_where_nothing_was_said_or_asked_are_zero():
    silent = rates(tally(["yes", "no"], [None, None]).sum(axis=0))
    assert (silent["precision"], silent["f1"], silent["unparsed"]) == (0, 0, 1)
    assert all(value == 0 for value in rates(np.zeros(len(COUNTS))).values())
