"""An image that is kept and asked about again."""

from functools import partial

import pytest
import torch

import iava
from iava import Greedy
from iava.engine import hf
from iava.engine.caches.prefix_cache import PrefixCache
from iava.errors import IavaError
from tests import families, tiny
from tests.families import FAMILIES

PICTURE = tiny.image(2)
QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?", "What ?"]


READ_ONCE = pytest.mark.skipif(
    not hf.takes_image_features(tiny.model()), reason="this release of transformers reads the image in every call"
)


def counting(model):
    """The numbers of tokens that the decoder's first layer runs, as a list that fills, and the hook."""
    read: list[int] = []

    def count(_module, args, kwargs):
        read.append((args[0] if args else kwargs["hidden_states"]).shape[:2].numel())

    return read, model.get_decoder().layers[0].register_forward_pre_hook(count, with_kwargs=True)


@pytest.mark.parametrize("method", ["iava", "greedy", "bias"])
@pytest.mark.parametrize("negative", ["zeros", "hide"])
def test_later_questions_get_what_they_get_alone(method, negative):
    lvlm = iava.load(tiny.model(1), tiny.processor())
    settings = {"negative": negative, "top_i": 4, "lam": -0.5} if method == "iava" else {}
    alone = [lvlm.ask(PICTURE, q, method=method, max_new_tokens=5, explain=True, **settings) for q in QUESTIONS]
    reading = lvlm.read(PICTURE)
    one = reading.ask(QUESTIONS[0], method=method, max_new_tokens=5, explain=True, **settings)
    others = reading.ask_many(QUESTIONS[1:], method=method, max_new_tokens=5, explain=True, **settings)
    for found, expected in zip([one, *others], alone, strict=True):
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)
        if method == "iava":
            assert found.explanation.selected.tolist() == expected.explanation.selected.tolist()
            seen, wanted = found.explanation.layers_general, expected.explanation.layers_general
            torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=0)


@READ_ONCE
def test_a_later_question_costs_what_follows_the_image(monkeypatch):
    lvlm = iava.load(tiny.model(1), tiny.processor())
    reading = lvlm.read(PICTURE)
    reading.ask(QUESTIONS[0], max_new_tokens=1)
    monkeypatch.setattr(lvlm.model.model, "get_image_features", None)
    read, handle = counting(lvlm.model)
    reading.ask(QUESTIONS[1], negative="hide", max_new_tokens=1)
    handle.remove()
    # "where is the blue boat on the street ? ASSISTANT :" in both branches, and nothing for the general instruction.
    assert read == [11, 11]


@READ_ONCE
def test_many_questions_encode_the_image_once(monkeypatch):
    model = tiny.model(1)
    lvlm = iava.load(model, tiny.processor())
    seen = []
    features = model.model.get_image_features

    def count(pixel_values, **kwargs):
        seen.append(len(pixel_values))
        return features(pixel_values, **kwargs)

    monkeypatch.setattr(model.model, "get_image_features", count)
    read, handle = counting(model)
    lvlm.ask_many(PICTURE, QUESTIONS, negative="hide", max_new_tokens=1)
    handle.remove()
    assert seen == [1]
    # USER : and nine image tokens once; three ends of prompts, twice; the general instruction once.
    assert read == [11, 33, 6, 33]


def test_another_image_is_not_mistaken_for_it():
    lvlm = iava.load(tiny.model(1), tiny.processor())
    reading = lvlm.read(PICTURE)
    reading.ask(QUESTIONS[0], max_new_tokens=2)
    other = lvlm.read(tiny.image(7))
    other.memory = reading.memory
    alone = lvlm.ask(tiny.image(7), QUESTIONS[0], max_new_tokens=4)
    assert other.ask(QUESTIONS[0], max_new_tokens=4).tokens == alone.tokens
    assert len(reading.memory.prefixes) == 2


def test_a_memory_is_handed_to_generate_as_well():
    model, proc = tiny.model(1), tiny.processor()
    memory = PrefixCache()
    for question in QUESTIONS:
        inputs = tiny.inputs(proc, PICTURE, question)
        plain = model.generate(**inputs, max_new_tokens=4)
        found = model.generate(**inputs, custom_generate=partial(Greedy(), prefix_cache=memory), max_new_tokens=4)
        assert torch.equal(plain, found)
    assert len(memory.prefixes) == 1


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_every_family_answers_from_a_reading_as_from_the_image(name):
    lvlm = iava.load(*families.build(name))
    inputs = families.inputs(name, *((question, [PICTURE]) for question in QUESTIONS[:2]))
    plain = lvlm.model.generate(**inputs, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
    reading = lvlm.read(PICTURE)
    for row, question in enumerate(QUESTIONS[:2]):
        answer = reading.ask(question, method="greedy", max_new_tokens=4)
        expected = plain[row].tolist()
        assert answer.tokens == (expected[: expected.index(2)] if 2 in expected else expected)
    together = lvlm.ask_many(PICTURE, QUESTIONS[:2], top_i=0.4, lam=-0.5, max_new_tokens=4, explain=True)
    for question, found in zip(QUESTIONS[:2], together, strict=True):
        alone = reading.ask(question, top_i=0.4, lam=-0.5, max_new_tokens=4, explain=True)
        assert alone.tokens == found.tokens
        assert alone.explanation.selected.tolist() == found.explanation.selected.tolist()
        boxes = alone.explanation.boxes
        assert (boxes is None) == (name in ("instructblip", "blip-2"))
        if boxes is not None:
            assert boxes.shape == (len(alone.explanation.selected), 4)
            assert (boxes >= 0).all()
            assert (boxes[:, 2] <= PICTURE.width).all()
            assert (boxes[:, 3] <= PICTURE.height).all()


def test_a_session_reports_its_bytes():
    reading = iava.load(tiny.model(1), tiny.processor()).read(tiny.image(2))
    assert reading.nbytes == 0
    reading.ask("Is there a dog ?", method="greedy", max_new_tokens=1)
    # Three layers of keys and values, and embeddings, of 32 numbers of four bytes, and a position, for 2 + 9 columns.
    assert reading.nbytes == 11 * ((3 * 2 + 1) * 32 * 4 + 8)


def asked_with(system, question):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def test_a_session_forgets_first_what_was_not_used_for_longest():
    """A system prompt stands before the image, so each has keys and values of the image of its own."""
    lvlm = iava.load(tiny.model(1), tiny.processor())
    systems = ["What .", "See the picture .", "Describe this dog ."]
    sizes = []
    for system in systems:
        alone = lvlm.read(PICTURE)
        alone.ask(asked_with(system, QUESTIONS[0]), max_new_tokens=1)
        sizes.append(alone.nbytes)
    session = lvlm.read(PICTURE, max_bytes=max(sizes[0] + sizes[2], sizes[0] + sizes[1]))
    held = []
    for number in (0, 1, 0, 2):
        session.ask(asked_with(systems[number], QUESTIONS[0]), max_new_tokens=1)
        held.append(session.nbytes)
    assert held == [sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1], sizes[0] + sizes[2]]
    small = lvlm.read(PICTURE, max_bytes=0)
    for number in (0, 1):
        answer = small.ask(asked_with(systems[number], QUESTIONS[0]), max_new_tokens=4)
        assert answer.tokens == lvlm.ask(PICTURE, asked_with(systems[number], QUESTIONS[0]), max_new_tokens=4).tokens
        # The keys and values of the last prompt stay, without its attention.
        assert 0 < small.nbytes < sizes[number]
    with pytest.raises(IavaError, match="max_bytes is -1"):
        lvlm.read(PICTURE, max_bytes=-1)


def test_attention_under_many_instructions_is_bounded():
    lvlm = iava.load(tiny.model(1), tiny.processor())
    session = lvlm.read(PICTURE)
    session.ask(QUESTIONS[0], method="greedy", max_new_tokens=1)
    prefix = session.nbytes
    # Three layers, four heads, nine image tokens.
    one = 3 * 4 * 9 * 4
    session = lvlm.read(PICTURE, max_bytes=prefix + 2 * one)
    held = []
    for general in ("Describe this image .", "See .", "What ?", "Describe this image ."):
        session.ask(QUESTIONS[0], general=general, max_new_tokens=1)
        held.append(session.nbytes - prefix)
    assert held == [one, 2 * one, 2 * one, 2 * one]


def test_a_session_with_an_image_that_depends_on_the_question_is_bounded():
    lvlm = iava.load(*families.build("instructblip"))
    free = lvlm.read(PICTURE)
    sizes = []
    for question in QUESTIONS:
        free.ask(question, method="greedy", max_new_tokens=1)
        sizes.append(free.nbytes)
    assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]
    session = lvlm.read(PICTURE, max_bytes=2 * sizes[0])
    for question in QUESTIONS:
        session.ask(question, method="greedy", max_new_tokens=1)
    assert session.nbytes == 2 * sizes[0]


def test_what_is_kept_holds_nothing_else_alive():
    """Two prefixes that were read in one run, of which one is dropped."""
    lvlm = iava.load(tiny.model(1), tiny.processor())
    session = lvlm.read(PICTURE)
    session.ask_many([asked_with(one, QUESTIONS[0]) for one in ("What .", "See .")], max_new_tokens=1)
    kept = session.memory.prefixes
    assert len(kept) == 2
    tensors = [kept[0].embeddings, kept[0].positions, *(part for pair in kept[0].layers for part in pair)]
    assert sum(part.untyped_storage().nbytes() for part in tensors) == sum(part.nbytes for part in tensors)
