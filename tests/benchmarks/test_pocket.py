"""The pocket versions: every question is true or false of its scene as it claims."""

import re
from collections import Counter

import pytest

from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.pocket import pocket
from iava.pocket.scenes import load_scene
from iava.pocket.text import NUMBERS, caption, plural
from iava.pocket.world import OBJECT_CLASSES

SPLIT, LIMIT = "tune", 40


def answered(subtask, question, scene):
    """What the scene itself answers, read off the words of the question."""
    if subtask == "existence":
        return re.fullmatch(r"Is there an? (.+) in the image\?", question)[1] in scene.names
    if subtask == "count":
        number, name = re.fullmatch(r"(?:Is|Are) there (\w+) (.+) in the image\?", question).groups()
        kinds = [kind for kind in OBJECT_CLASSES if name in (kind, plural(kind))]
        return any(scene.counts[kind] == NUMBERS.index(number) for kind in kinds)
    if subtask == "position":
        a, side, b = re.fullmatch(r"Is the (.+) to the (left|right) of the (.+)\?", question).groups()
        (left_a, _, right_a, _), (left_b, _, right_b, _) = scene.boxes(a)[0], scene.boxes(b)[0]
        return (left_a + right_a < left_b + right_b) == (side == "left")
    name, colour = re.fullmatch(r"Is the (.+) (\w+)\?", question).groups()
    return [one.colour for one in scene.objects if one.name == name] == [colour]


def test_mme_pairs_are_one_truth_and_one_untruth_about_the_scene():
    questions = pocket("mme", SPLIT, LIMIT).questions
    pairs = Counter((q.image, q.category) for q in questions)
    assert set(pairs.values()) == {2}
    assert Counter(category for _, category in pairs)["existence"] == LIMIT
    assert {category for _, category in pairs} == {"existence", "count", "position", "color"}
    for question in questions:
        split, number = question.image.rsplit("-", 1)
        true = answered(question.category, question.question, load_scene(split, int(number)))
        assert question.truth == ("yes" if true else "no"), question
    assert len({q.id for q in questions}) == len(questions)


def test_chair_reads_the_things_of_its_own_captions():
    task = pocket("chair", SPLIT, LIMIT)
    assert [q.image for q in task.questions] == [f"{SPLIT}-{i:05d}" for i in range(LIMIT)]
    for question in task.questions:
        scene = load_scene(SPLIT, int(question.image.rsplit("-", 1)[1]))
        assert question.truth == sorted(scene.names)
        assert sorted(task.read(question, caption(scene, scene.names))) == sorted(scene.names)
    every = ", ".join(word for thing in OBJECT_CLASSES for word in (thing, plural(thing)))
    assert Counter(benchmark("chair").read_pocket(every)) == dict.fromkeys(OBJECT_CLASSES, 2)
    assert benchmark("chair").read_pocket("A kitchen with nothing, a unicorn.") == []


def test_a_limit_takes_the_first_images_with_all_their_questions():
    few, more = pocket("mme", SPLIT, 3), pocket("mme", SPLIT, 5)
    assert few.questions == more.questions[: len(few.questions)]
    assert len(few.images) == 3
    assert few.open_image(few.images[2]).tobytes() == load_scene(SPLIT, 2).render().tobytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("textvqa", SPLIT), "textvqa has no pocket version: use pope, mme, chair, or a folder of data"),
        (("mme", "val"), "unknown split 'val'"),
        (("chair", SPLIT, 0), "limit is 0"),
    ],
)
def test_what_there_is_not(arguments, words):
    with pytest.raises(ValueError, match=words):
        pocket(*arguments)
