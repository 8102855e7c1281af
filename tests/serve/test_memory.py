"""The server reads an image once for several requests, and what it keeps is bounded."""

import gc
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

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


def live():
    """All objects that the garbage collector knows, and the tensors among them."""
    gc.collect()
    found = gc.get_objects()
    # `isinstance` would wake the lazy attributes of modules.
    return found, [one for one in found if issubclass(type(one), torch.Tensor)]


def tensor_bytes():
    """The memory behind all tensors. A part of a tensor holds the whole."""
    held = [one.untyped_storage() for one in live()[1]]
    return sum({one.data_ptr(): one.nbytes() for one in held}.values())


def test_kept_tensors_take_no_more_memory_than_is_allowed(counted):
    lvlm, *_ = counted
    # All images are read in one batch, and few of them are kept.
    limit, images = 40_000, [tiny.image(seed) for seed in range(16)]
    with running(lvlm, method="greedy", limits=Limits(image_bytes=limit, window=60)) as served:
        before = tensor_bytes()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda image: ask(served, image, QUESTIONS[0], "greedy"), images))
        served.until_idle()
        kept = value(served, "iava_image_memory_bytes")
        assert 0 < kept <= limit
        assert tensor_bytes() - before <= kept


def send(served, count):
    """Sends requests of several methods, in one piece, as streams, and as streams whose client leaves."""
    images = [tiny.image(seed) for seed in range(3)]
    methods = [{"method": "greedy"}, {"method": "iava"}, {"method": "vcd"}, {"method": "iava", "explain": True}]
    with served.client() as client:
        for number in range(count):
            asked = {
                "model": "tiny",
                "messages": [user(QUESTIONS[number % 3], images[number // 3 % 3])],
                "max_tokens": 5,
                "extra_body": {"iava": methods[number // 9 % 4]},
            }
            if number % 2:
                client.chat.completions.create(**asked)
                continue
            with client.chat.completions.create(**asked, stream=True) as stream:
                for _ in stream:
                    if number % 4:
                        break
    served.until_idle()


@pytest.mark.slow
def test_a_request_leaves_nothing_behind(lvlm):
    def kept():
        return [len(found) for found in live()]

    with running(lvlm, method="greedy", limits=Limits(page_bytes=0)) as served:
        send(served, 50)
        size = value(served, "iava_image_memory_bytes")
        counts = [kept()]
        for _ in range(2):
            send(served, 150)
            counts.append(kept())
        assert value(served, "iava_image_memory_bytes") == size
    # One object or tensor a request would add 150 each time. The last batch is still alive, and its size varies.
    for before, between, after in zip(*counts, strict=True):
        assert min(between - before, after - between) < 75
