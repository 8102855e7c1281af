"""One model in many threads: each gets what it gets alone, bit for bit."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from iava import load
from tests import families, tiny
from tests.test_families import state

pytestmark = pytest.mark.slow

QUESTIONS = ["Is there a dog ?", "how many red birds are there on the street ?", "What ?", "where is the blue boat ?"]
METHODS = ["greedy", "sample", "iava", "vcd", "icd", "pai", "sid", "only"]
PICTURES = [tiny.image(number) for number in range(3)]
ROUNDS = 50


def asked(lvlm, method, number):
    """Tokens and first logits of an answer; which question and image, follows from the number."""
    picture, question = PICTURES[number % 3], QUESTIONS[number % 4]
    answer = lvlm.ask(picture, question, method=method, max_new_tokens=3, seed=number)
    return answer.tokens, answer.logits.tolist()


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_eight_threads_with_eight_methods_and_plain_generate_in_a_ninth(family):
    lvlm = load(*families.build(family))
    inputs = families.inputs(family, *((question, PICTURES[:1]) for question in QUESTIONS))
    plain = lvlm.model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True, output_logits=True)
    alone = {method: [asked(lvlm, method, number) for number in range(12)] for method in METHODS}
    before, done, wrong = state(lvlm.model), threading.Event(), []

    def ninth():
        count = 0
        while not done.is_set() or count == 0:
            now = lvlm.model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True, output_logits=True)
            if not all(map(torch.equal, (now.sequences, *now.logits), (plain.sequences, *plain.logits))):
                wrong.append(count)
            count += 1

    def ask_all(method):
        return [asked(lvlm, method, number % 12) for number in range(ROUNDS)]

    other = threading.Thread(target=ninth)
    other.start()
    try:
        with ThreadPoolExecutor(len(METHODS)) as pool:
            found = dict(zip(METHODS, pool.map(ask_all, METHODS), strict=True))
    finally:
        done.set()
        other.join()
    for method in METHODS:
        assert found[method] == [alone[method][number % 12] for number in range(ROUNDS)], method
    assert not wrong
    # Plain `generate` leaves its own position offsets on the model.
    before_offsets, after = state(lvlm.model), before
    for kept in (before_offsets, after):
        for name, values in kept.items():
            kept[name] = values[:-1] if isinstance(values, tuple) else values
    assert before_offsets == after


def test_a_session_in_eight_threads():
    lvlm = load(tiny.model(1), tiny.processor())
    session = lvlm.read(PICTURES[0])
    # The first call reads the image.
    session.ask(QUESTIONS[0], max_new_tokens=1)

    def ask(number):
        answer = session.ask(QUESTIONS[number % 4], method=METHODS[number % 8], max_new_tokens=3, seed=number)
        return answer.tokens, answer.logits.tolist()

    alone = [ask(number) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(16))) == alone


def test_asyncio_to_thread():
    lvlm = load(tiny.model(1), tiny.processor())
    jobs = [(method, number) for number in range(4) for method in METHODS]
    alone = [asked(lvlm, *job) for job in jobs]

    async def together():
        return await asyncio.gather(*(asyncio.to_thread(asked, lvlm, *job) for job in jobs))

    assert asyncio.run(together()) == alone


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_thread_that_fails_leaves_the_others_and_the_model_alone(error):
    model, proc = tiny.model(1), tiny.processor()
    lvlm = load(model, proc)
    alone = [asked(lvlm, "iava", number) for number in range(8)]
    before = state(model)

    class Interrupted(BaseException):
        pass

    def fail(method):
        def raise_it(*_args, **_kwargs):
            raise error

        made = lvlm.method(method)
        made.combine = raise_it
        try:
            lvlm.ask(PICTURES[0], QUESTIONS[0], method=made, max_new_tokens=2)
        except error:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        failing = [pool.submit(fail, method) for method in (*METHODS, *METHODS)]
        found = list(pool.map(partial(asked, lvlm, "iava"), range(8)))
        assert all(one.result() for one in failing)
    assert found == alone
    assert state(model) == before


def test_seeds_repeat_whatever_runs_beside():
    """Two models in two threads, both drawing: as each alone, and torch's own random state is left alone."""
    pair = [load(tiny.model(seed), tiny.processor()) for seed in (1, 2)]

    def drawn(lvlm):
        jobs = [(method, number) for number in range(12) for method in ("sample", "apc", "iava-random", "noise")]
        return [asked(lvlm, *job) for job in jobs]

    alone = [drawn(lvlm) for lvlm in pair]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(drawn, pair)) == alone
    assert torch.equal(torch.rand(3), expected)


def test_a_seed_of_a_call_is_torchs_seed():
    model, proc = tiny.model(1), tiny.processor()
    inputs = tiny.inputs(proc, PICTURES[0], *QUESTIONS)
    from iava import APC

    for options in ({}, {"do_sample": True, "num_beams": 3}):
        torch.manual_seed(11)
        expected = model.generate(**inputs, custom_generate=APC(), max_new_tokens=5, **options)
        torch.manual_seed(0)
        found = model.generate(**inputs, custom_generate=APC(), max_new_tokens=5, seed=11, **options)
        assert torch.equal(found, expected)
    scores = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    torch.manual_seed(11)
    expected = model.generate(**inputs, custom_generate=APC(), max_new_tokens=5, **scores)
    found = model.generate(**inputs, custom_generate=APC(), max_new_tokens=5, seed=11, **scores)
    for name in ("scores", "logits"):
        assert all(map(torch.equal, found[name], expected[name]))
