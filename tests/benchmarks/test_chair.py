"""What captions name, and CHAIR counted by hand."""

import pytest

from iava.benchmarks.chair_words import _tables, class_of, mentions
from iava.benchmarks.registry import benchmark


def test_there_are_eighty_classes_and_every_word_has_one():
    classes, _ = _tables()
    assert len(set(classes.values())) == 80
    assert all(classes[name] == name for name in classes.values())
    assert (class_of("Puppy"), class_of("tv"), class_of("unicorn")) == ("dog", "tv", None)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man and two women ride horses.", ["person", "person", "horse"]),
        ("Puppies, kittens and geese near buses", ["dog", "cat", "bird", "bus"]),
        ("A hot dog beside a dog", ["hot dog", "dog"]),
        ("a teddy bear", ["teddy bear"]),
        ("teddy, bear", ["bear"]),
        ("Two wine glasses and a glass", ["wine glass"]),
        ("Fire hydrants at a stop sign", ["fire hydrant", "stop sign"]),
        ("a baby elephant with its baby", ["elephant", "person"]),
        ("an adult giraffe", ["giraffe"]),
        ("a passenger train with passengers", ["train", "person"]),
        ("train tracks by the home plate", []),
        ("a toilet with its seat up", ["toilet"]),
        ("a toilet seat, a chair", ["toilet", "chair"]),
        ("a seat", ["chair"]),
        ("a man in a bow tie", ["person", "tie"]),
        ("a dining table", ["dining table"]),
        ("a motor cycle under traffic lights", ["motorcycle", "traffic light"]),
        ("blue skies over skis", ["skis"]),
        ("knives, scissors, a T-shirt, a dog-like thing", ["knife", "scissors"]),
        ("the dog's bowl", ["dog", "bowl"]),
        ("Ein Hund。一只狗", []),
        ("", []),
    ],
)
def test_mentions(caption, expected):
    assert mentions(caption) == expected


def test_chair_counted_by_hand():
    objects = {"1": {"dog", "person"}, "2": {"car"}, "3": {"cat", "bed"}}
    captions = [
        ("1", "A man with a dog, a puppy and a frisbee"),  # 4 mentions, 1 wrong, 2 of 2 objects
        ("2", "Cats on a bed"),  # 2 mentions, 2 wrong, 0 of 1
        ("3", "A cat"),  # 1 mention, 1 of 2
        ("3", "Nothing to see"),  # 0 of 2
    ]
    assert score(captions, objects) == pytest.approx({"n": 4, "chair_i": 3 / 7, "chair_s": 2 / 4, "recall": 3 / 7})
    assert score([], objects) == {"n": 0, "chair_i": 0, "chair_s": 0, "recall": 0}
    assert score([("1", "")], objects)["chair_i"] == 0


def score(captions, objects):
    records = [
        {"category": "caption", "parsed": mentions(text), "truth": sorted(objects[image])} for image, text in captions
    ]
    return benchmark("chair").score(records)
