"""How a method chooses its tokens: the best one, or drawn with temperature, top_k and top_p, question by question."""

from functools import partial

import pytest
import torch

import iava
from iava import APC, M3ID, VCD, ConstantBias, Greedy, PromptBias, Sample
from iava.errors import IavaError
from iava.lvlm.conversation import read_conversation
from iava.lvlm.decoding import draw_seed
from iava.methods import METHODS
from tests import families, tiny, twobranch

PICTURE = tiny.image(1, (40, 32))
QUESTIONS = ["Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?"]
DRAWING = {"sampling": True, "temperature": 1.3, "top_k": 40, "top_p": 0.9}
STEPS = 5
MAY_DRAW = [
    name
    for name, method in METHODS.items()
    if method.sampling is not False and name != "oracle" and not method.several_calls
]


def drawn(logits: torch.Tensor, generator: torch.Generator) -> int:
    """A token drawn by hand: logits / temperature, the best top_k, then the fewest with a share of top_p."""
    warm = (logits.double() / DRAWING["temperature"]).tolist()
    order = sorted(range(len(warm)), key=lambda token: -warm[token])[: DRAWING["top_k"]]
    weights = [torch.tensor(warm[token]).exp().item() for token in order]
    kept, reached = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        if reached < DRAWING["top_p"]:
            kept.append(token)
        reached += weight / sum(weights)
    allowed = torch.full_like(logits, -torch.inf)
    allowed[kept] = logits[kept] / DRAWING["temperature"]
    return int(torch.multinomial(allowed.softmax(-1)[None], 1, generator=generator))


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "instructblip"])
def test_each_question_draws_from_its_own_generator(name):
    model, processor = families.build(name)
    lvlm = iava.load(model, processor)
    settings = {"threshold": 1.0, "offset": 30, "beta": 0.1, **DRAWING}
    found = lvlm.ask_many(PICTURE, QUESTIONS, method="m3id", seed=9, max_new_tokens=STEPS, **settings)
    eager = twobranch.eager(name)
    for question, answer in zip(QUESTIONS, found, strict=True):
        inputs = families.inputs(name, (question, [PICTURE]))
        text = inputs["input_ids"][0] != model.config.image_token_id
        keys = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
        short = {key: inputs[key][:, text] for key in keys if key in inputs}
        blind = eager.language_model if model.config.model_type == "instructblip" else eager
        seen, unseen = twobranch.reader(eager, inputs), twobranch.reader(blind, short)
        seed = draw_seed(9, read_conversation(question, [PICTURE]))
        generator, tokens = torch.Generator().manual_seed(seed), []
        while len(tokens) < STEPS and 2 not in tokens:
            full, other = seen(tokens).log_softmax(-1), unseen(tokens).log_softmax(-1)
            weight = torch.tensor(0.02 * (len(tokens) + 1 + 30)).expm1()
            combined = full + weight * (full - other)
            combined[full.exp() < 0.1 * full.exp().max()] = -torch.inf
            tokens.append(drawn(combined, generator))
        assert answer.tokens == [token for token in tokens if token != 2]
        assert answer.settings == {**M3ID(**settings).settings()}


@pytest.mark.parametrize("name", MAY_DRAW)
def test_a_method_draws_as_generate_does_with_the_same_seed(name):
    model, processor = tiny.model(4, spread=0.2), tiny.processor()
    asked = [METHODS[name]().reword(question) for question in QUESTIONS]
    inputs = tiny.inputs(processor, PICTURE, *asked)
    made = [METHODS[name](**one).bind(model, processor) for one in ({}, DRAWING)]
    options = {"do_sample": True, **{name: value for name, value in DRAWING.items() if name != "sampling"}}
    if name == "apc":
        # Its constraint comes behind all warpers, as min_p does in `generate`.
        made[0] = None
        options["min_p"] = 0.1
    found = []
    for method, told in zip(made, (options, {}), strict=True):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, custom_generate=method, max_new_tokens=STEPS, **told))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["sample", "apc", "vcd", "iava"])
def test_an_answer_does_not_depend_on_the_other_questions(name):
    lvlm = iava.load(tiny.model(4, spread=0.2), tiny.processor())
    ask = partial(lvlm.ask_many, PICTURE, method=name, sampling=True, seed=3, max_new_tokens=STEPS)
    together = [answer.tokens for answer in ask(QUESTIONS)]
    assert together == [ask([question])[0].tokens for question in QUESTIONS]
    assert together == [answer.tokens for answer in ask(QUESTIONS[::-1])][::-1]
    assert together != [a.tokens for a in lvlm.ask_many(PICTURE, QUESTIONS, method=name, sampling=True, seed=4)]


def test_the_same_question_twice_draws_twice():
    lvlm = iava.load(tiny.model(4, spread=0.2), tiny.processor())
    answers = lvlm.ask_many(PICTURE, QUESTIONS[:1] * 6, method="sample", seed=3, max_new_tokens=STEPS)
    assert len({str(answer.tokens) for answer in answers}) > 1


def test_without_an_image_the_method_draws_as_it_says():
    lvlm = iava.load(tiny.model(4, spread=0.2), tiny.processor())
    chat = partial(lvlm.chat, QUESTIONS[0], seed=3, max_new_tokens=8)
    drawn, best = chat(method="sample").tokens, chat(method="greedy").tokens
    assert drawn != best
    assert chat(method="vcd", sampling=True).tokens == drawn
    assert chat(method="vcd", sampling=True, top_k=1).tokens == best
    assert chat(method="vcd").tokens == best


def test_top_k_of_one_is_greedy():
    model, processor = tiny.model(4, spread=0.2), tiny.processor()
    inputs = tiny.inputs(processor, PICTURE, *QUESTIONS)
    found = [
        model.generate(**inputs, custom_generate=VCD(**settings), max_new_tokens=STEPS)
        for settings in ({}, {"sampling": True, "top_k": 1})
    ]
    assert torch.equal(*found)


def test_settings_say_how_tokens_are_drawn():
    assert not {"sampling", "temperature"} & VCD().settings().keys()
    assert VCD(sampling=True, top_k=5).settings() == {
        **VCD().settings(),
        "sampling": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 5,
    }
    assert Greedy().settings() == {}
    for name, method in METHODS.items():
        assert ("sampling" in method.setting_names()) == (name not in ("greedy", "verify"))


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Greedy(sampling=True), "sampling is True, but Greedy always takes the best"),
        (lambda: Sample(sampling=False), "sampling is False, but Sample always draws"),
        (lambda: APC(sampling=None), "sampling is None, but APC always draws"),
        (lambda: VCD(temperature=0.5), "temperature is 0.5, but VCD draws no token: add sampling=True"),
        (lambda: VCD(sampling=False, top_p=0.5), "top_p is 0.5, but VCD draws no token"),
        (lambda: ConstantBias(top_k=3), "top_k is 3, but ConstantBias draws no token"),
        (lambda: PromptBias(sampling="yes"), "sampling is 'yes': it must be true or false"),
        (lambda: VCD(sampling=True, temperature=0), "temperature is 0: it must be a number, above 0"),
        (lambda: VCD(sampling=True, top_p=0), "top_p is 0: it must be a number, above 0 and at most 1"),
        (lambda: VCD(sampling=True, top_k=-1), "top_k is -1: it must be a whole number, at least 0"),
        (lambda: VCD(sampling=True, top_k=1.5), "top_k is 1.5: it must be a whole number, at least 0"),
    ],
)
def test_refusals(build, complaint):
    with pytest.raises(IavaError, match=complaint):
        build()
