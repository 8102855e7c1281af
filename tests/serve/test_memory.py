"""The server reads an image once for several requests, and the bytes of kept images are bounded."""

import re

import pytest

from iava.lvlm.model import LVLM
from iava.serve.limits import Limits
from tests import tiny
from tests.serve.serving import running, user

QUESTIONS = ("Is there a dog ?", "Where ?", "How many cat ?")


@pytest.fixture
def counted():
    """A model, the number of images in each run of its vision tower, and of columns in each run of its decoder."""
    lvlm, images, columns = LVLM(tiny.model(), tiny.processor()), [], []
    lvlm.model.model.vision_tower.register_forward_pre_hook(lambda _, args: images.append(len(args[0])))

    lvlm.model.get_decoder().layers[0].register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    return lvlm, images, columns


def ask(served, image, question, method):
    return served.client().chat.completions.create(
        model="tiny", messages=[user(question, image)], max_tokens=5, extra_body={"iava": {"method": method}}
    )


def value(served, name):
    with served.http() as http:
        return float(re.search(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)[1])


@pytest.mark.slow
def test_an_image_is_read_once(counted):
    lvlm, images, columns = counted
    with running(lvlm, method="greedy") as served:
        answers = {}
        for method in ("greedy", "iava", "m3id"):
            for question in QUESTIONS:
                for seed in (1, 2):
                    found = ask(served, tiny.image(seed), question, method)
                    answers[method, question, seed] = found.choices[0].message.content
        assert value(served, "iava_image_memory_images") == 2
        assert value(served, "iava_image_memory_bytes") > 2 * (24 * 24 * 3 + 9 * 32) * 4
    assert sum(images) == 2
    # The decoder reads "USER :" and the 9 image tokens of each image once; a question costs what follows.
    widest = sorted(columns, reverse=True)
    assert widest[:2] == [11, 11]
    assert widest[2] < 11
    plain = LVLM(tiny.model(), tiny.processor())
    for (method, question, seed), text in answers.items():
        assert text == plain.ask(tiny.image(seed), question, method=method, max_new_tokens=5).text


def test_the_bytes_of_images_are_bounded(counted):
    lvlm, images, _ = counted
    limit = 40_000
    with running(lvlm, method="greedy", limits=Limits(image_bytes=limit)) as served:
        for seed in range(6):
            ask(served, tiny.image(seed), QUESTIONS[0], "greedy")
            assert value(served, "iava_image_memory_bytes") <= limit
        kept = value(served, "iava_image_memory_images")
        assert 1 <= kept < 6
        assert sum(images) == 6
        ask(served, tiny.image(5), QUESTIONS[1], "greedy")
        assert sum(images) == 6
        ask(served, tiny.image(0), QUESTIONS[1], "greedy")
        assert sum(images) == 7


def test_a_limit_of_zero_bytes_keeps_no_image(counted):
    lvlm, images, _ = counted
    with running(lvlm, method="greedy", limits=Limits(image_bytes=0)) as served:
        texts = {ask(served, tiny.image(), QUESTIONS[0], "iava").choices[0].message.content for _ in range(3)}
        assert value(served, "iava_image_memory_bytes") == 0
    assert len(texts) == 1
    assert sum(images) == 3
