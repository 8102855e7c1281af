"""What is made of images is kept within a number of bytes, and answers stay the same."""

import pytest
import torch

from iava.engine.hf import takes_image_features
from iava.lvlm.conversation import prompt_text, read_conversation
from iava.lvlm.inputs import Inputs
from iava.lvlm.memory import ImageMemory
from iava.lvlm.model import LVLM
from tests import tiny

READ_ONCE = pytest.mark.skipif(
    not takes_image_features(tiny.model()), reason="this release of transformers reads the image in every call"
)


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def batch(lvlm, images, memory, *, pixels=False):
    texts = [prompt_text(lvlm.processor, read_conversation("Where ?", [image])) for image in images]
    inputs = Inputs(lvlm.model, lvlm.processor, memory=memory)
    return inputs.of(texts, [[image] for image in images], pixels=pixels)


def test_what_is_kept_is_what_a_batch_without_memory_gets(lvlm):
    first, second = tiny.image(1), tiny.image(2, size=(64, 24))
    images, memory = [first, second, first], ImageMemory(10**9)
    expected = batch(lvlm, images, None, pixels=True)
    for _ in range(2):
        found = batch(lvlm, images, memory, pixels=True)
        assert set(found) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    assert len(memory) == 2


@READ_ONCE
def test_what_the_vision_tower_made_of_an_image_is_kept(lvlm):
    images, memory = [tiny.image(1), tiny.image(2, size=(64, 24)), tiny.image(1)], ImageMemory(10**9)
    features = batch(lvlm, images, memory)["mm_encoder_outputs"]["image"]["pooler_output"]
    for number, image in enumerate(images):
        pixels = batch(lvlm, [image], None, pixels=True)["pixel_values"]
        alone = lvlm.model.model.get_image_features(pixel_values=pixels, return_dict=True)["pooler_output"]
        torch.testing.assert_close(features[number], alone[0], rtol=0, atol=0)


@READ_ONCE
def test_the_vision_tower_sees_an_image_once(lvlm):
    seen, memory = [], ImageMemory(10**9)
    tower = lvlm.model.model.vision_tower
    handle = tower.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    images = [tiny.image(1), tiny.image(2)]
    batch(lvlm, images, memory)
    batch(lvlm, [images[1], images[0], images[1]], memory)
    handle.remove()
    assert sum(seen) == 2


@READ_ONCE
def test_bytes_are_those_of_pixels_features_and_prefixes(lvlm):
    memory = ImageMemory(10**9)
    image = tiny.image(size=(40, 32))
    kept = memory.of(image)
    assert kept.nbytes == 40 * 32 * 3
    batch(lvlm, [image], memory)
    # 24 x 24 pixels of 3 channels, and 9 image tokens of width 32, in single precision.
    assert kept.nbytes == 40 * 32 * 3 + (24 * 24 * 3 + 9 * 32) * 4
    memory.trim()
    assert memory.nbytes == kept.nbytes


def test_the_least_recently_used_go_first():
    images = [tiny.image(seed, size=(10, 10)) for seed in range(4)]
    memory = ImageMemory(700)
    for image in images[:2]:
        memory.of(image)
    memory.trim()
    assert (len(memory), memory.nbytes) == (2, 600)
    marked = memory.of(images[0])
    memory.of(images[2])
    memory.trim()
    assert (len(memory), memory.nbytes) == (2, 600)
    assert memory.of(images[0]) is marked
    memory.clear()
    assert (len(memory), memory.nbytes) == (0, 0)
    nothing = ImageMemory(0)
    nothing.of(images[3])
    nothing.trim()
    assert len(nothing) == 0
