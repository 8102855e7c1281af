"""Pocket scenes written in the published layouts are read back as what they are."""

from collections import Counter

import numpy as np
import pytest

from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.pocket import pocket
from iava.pocket.scenes import load_scene
from tests.commands import refused, run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket") / "data"
    assert run("data", "write-pocket", "--out", folder, "--split", "test", "--limit", "8").exit_code == 0
    return folder


@pytest.mark.parametrize("name", ["pope", "mme"])
@pytest.mark.slow
def test_the_same_questions_about_the_same_pixels(written, name):
    back, scenes = benchmark(name).load(written / name), pocket(name, "test", 8)

    def asked(task):
        stem = {image: image.rpartition("/")[2].removesuffix(".png") for image in task.images}
        return Counter((stem[q.image], q.category, q.question, q.truth) for q in task.questions)

    assert asked(back) == asked(scenes)
    for image in back.images:
        scene = scenes.open_image(image.rpartition("/")[2].removesuffix(".png"))
        assert np.array_equal(np.asarray(back.open_image(image)), np.asarray(scene))


def test_short_answers_are_true_of_the_scenes(written):
    task = benchmark("textvqa").load(written / "textvqa")
    assert len(task.images) == 8
    scenes = {f"test-{index:05d}.jpg": load_scene("test", index) for index in range(8)}
    number = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
    counted = coloured = 0
    for question in task.questions:
        words, objects = question.question.split(), scenes[question.image].objects
        answer = question.truth[0]
        assert question.truth == [answer] * 10
        if words[0] == "How":
            kinds = {one.name for one in objects if one.name[:3] == words[2][:3]}
            assert number[answer] in {sum(one.name == kind for one in objects) for kind in kinds}
            counted += 1
        else:
            name = question.question.removeprefix("What colour is the ").split("?")[0]
            assert answer in {one.colour for one in objects if one.name == name}
            coloured += 1
    assert counted == sum(len(scene.names) for scene in scenes.values())
    assert coloured


def test_a_folder_in_use_is_left_alone(written):
    before = sorted(written.rglob("*"))
    assert "is in use" in refused("data", "write-pocket", "--out", written)
    assert "unknown split 'train'" in refused("data", "write-pocket", "--out", written / "x", "--split", "train")
    assert sorted(written.rglob("*")) == before
