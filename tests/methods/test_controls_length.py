"""Controls of length against plain `generate`: the same tokens, or the logits with a constant added by hand."""

import pytest
import torch

from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.methods.controls_length import EndBias, TokenLimit
from tests import tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat ?"]
END = 2


@pytest.fixture(scope="module")
def setup():
    model, processor = tiny.model(spread=0.2), tiny.processor()
    return model, processor, tiny.inputs(processor, tiny.image(3), *QUESTIONS)


def generated(setup, method=None, length=8, **options):
    model, _, inputs = setup
    return model.generate(**inputs, max_new_tokens=length, do_sample=False, custom_generate=method, **options)


@pytest.mark.parametrize("tokens", [1, 3, 5])
def test_a_token_limit_ends_as_max_new_tokens_does(setup, tokens):
    prompt = setup[2]["input_ids"].shape[1]
    expected = generated(setup, length=tokens)[:, prompt:]
    found = generated(setup, TokenLimit(tokens))[:, prompt:]
    assert torch.equal(found[:, :tokens], expected)
    assert found[:, tokens].tolist() == [END, END]


@pytest.mark.parametrize(("words", "named"), [("", []), ("and .", ["and", "."])])
def test_an_end_bias_is_added_to_the_end_and_the_words_and_nothing_else(setup, words, named):
    shown = {"length": 1, "return_dict_in_generate": True, "output_logits": True}
    plain = generated(setup, **shown).logits[0]
    found = generated(setup, EndBias(2.5, words, setup[1]), **shown).logits[0]
    expected = plain.clone()
    expected[:, [END, *(tiny.WORDS.index(word) + 5 for word in named)]] += 2.5
    torch.testing.assert_close(found, expected)


def test_an_end_bias_makes_captions_shorter_or_longer(setup):
    model, processor, _ = setup
    lengths = [
        len(LVLM(model, processor).ask(tiny.image(3), QUESTIONS[0], method="end-bias", bias=bias).tokens)
        for bias in (100.0, -100.0)
    ]
    assert lengths == [0, 32]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda _: EndBias(float("nan")), "bias is nan: it must be a number, finite"),
        (lambda _: TokenLimit(0), "tokens is 0: it must be a whole number, at least 1"),
        (lambda setup: generated(setup, EndBias(1.0, "and")), r"use EndBias\(bias, words, processor\)"),
        (
            lambda setup: generated(setup, EndBias(1.0, "andante", setup[1])),
            "words is 'andante': the tokenizer has no single token for 'andante'",
        ),
    ],
)
def test_refusals(setup, call, words):
    with pytest.raises(IavaError, match=words):
        call(setup)


def test_a_model_without_an_end_token_is_refused(setup):
    setup[0].generation_config.eos_token_id, before = None, setup[0].generation_config.eos_token_id
    try:
        with pytest.raises(IavaError, match="token-limit has no token that ends an answer"):
            generated(setup, TokenLimit(3))
    finally:
        setup[0].generation_config.eos_token_id = before
