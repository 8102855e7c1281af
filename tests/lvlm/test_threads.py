"""One model in many threads answers as in one."""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import iava
from iava.errors import IavaError
from tests import families, tiny

PICTURES = [tiny.image(n) for n in range(4)]
QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?", "What ?"]
METHODS = ["greedy", "iava", "sample", "icd", "pai", "vcd", "sid", "only", "avisc", "m3id"]
WORK = [
    (PICTURES[(n + m) % 4], question, method, 3 * m + n)
    for m, method in enumerate(METHODS)
    for n, question in enumerate(QUESTIONS)
]
"""Picture, question, method and seed of each call."""


def ask(lvlm, picture, question, method, seed):
    answer = lvlm.ask(picture, question, method=method, seed=seed, max_new_tokens=5)
    return answer.tokens, answer.logits


def same(found, expected):
    for (tokens, logits), (wanted, wanted_logits) in zip(found, expected, strict=True):
        assert tokens == wanted
        assert torch.equal(logits, wanted_logits)


SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("qwen2_vl", "instructblip")]


@pytest.fixture(scope="module", params=["llava", *SLOW])
def lvlm(request):
    return iava.load(*families.build(request.param))


@pytest.fixture(scope="module")
def expected(lvlm):
    return [ask(lvlm, *one) for one in WORK]


def test_eight_threads_answer_as_one(lvlm, expected):
    with ThreadPoolExecutor(8) as pool:
        same(list(pool.map(lambda one: ask(lvlm, *one), WORK)), expected)
        # Again, in another order: who meets whom is another one.
        backwards = list(pool.map(lambda one: ask(lvlm, *one), WORK[::-1]))
        same(backwards[::-1], expected)


def test_tasks_of_an_event_loop_answer_as_one(lvlm, expected):
    async def every():
        return await asyncio.gather(*(asyncio.to_thread(ask, lvlm, *one) for one in WORK))

    same(asyncio.run(every()), expected)


@pytest.mark.slow
def test_one_session_serves_many_threads(lvlm):
    session = lvlm.read(PICTURES[0])
    alone = [lvlm.ask(PICTURES[0], question, max_new_tokens=5).tokens for question in QUESTIONS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: session.ask(QUESTIONS[n % 3], max_new_tokens=5).tokens, range(24)))
    assert found == alone * 8


@pytest.mark.slow
def test_conversations_of_many_threads(lvlm):
    if lvlm.processor.chat_template is None:
        pytest.skip("takes one question")
    talks = [[{"role": "system", "content": "See ."}, {"role": "user", "content": question}] for question in QUESTIONS]
    alone = [lvlm.chat(talk, images=PICTURES[:2], max_new_tokens=5).tokens for talk in talks]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: lvlm.chat(talks[n % 3], images=PICTURES[:2], max_new_tokens=5).tokens, range(24))
        )
    assert found == alone * 8


@pytest.mark.slow
def test_mistakes_in_some_threads_disturb_no_other(lvlm, expected):
    def one(number):
        if number % 3 == 0:
            with pytest.raises(IavaError):
                lvlm.ask(PICTURES[0], "<s>", max_new_tokens=3)
            with pytest.raises(IavaError):
                lvlm.ask(PICTURES[0], "What ?", top_i=0)
        return ask(lvlm, *WORK[number])

    with ThreadPoolExecutor(8) as pool:
        same(list(pool.map(one, range(len(WORK)))), expected)


def test_a_model_in_training_is_in_training_again():
    model, processor = families.build("llava")
    model = copy.deepcopy(model).train()
    modes = [module.training for module in model.modules()]
    lvlm = iava.load(model, processor)
    wanted = [ask(iava.load(*families.build("llava")), *one) for one in WORK[:8]]
    with ThreadPoolExecutor(8) as pool:
        same(list(pool.map(lambda one: ask(lvlm, *one), WORK[:8])), wanted)
    assert [module.training for module in model.modules()] == modes
