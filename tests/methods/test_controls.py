import math

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from iava import APC, ConstantBias, Greedy, Sample
from iava.methods import METHODS
from iava.methods.words import yes_no_ids, yes_no_logits
from tests import tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat ?"]


@pytest.fixture
def setup():
    model, proc = tiny.model(spread=0.2), tiny.processor()
    return model, proc, tiny.inputs(proc, tiny.image(3), *QUESTIONS)


def both(model, inputs, method, seed=11, plain=None, **options):
    """Tokens of plain `generate` and of the method, from the same seed."""
    torch.manual_seed(seed)
    expected = model.generate(**inputs, max_new_tokens=10, **(plain or {}), **options)
    torch.manual_seed(seed)
    return expected, model.generate(**inputs, max_new_tokens=10, custom_generate=method, **options)


def test_greedy_is_plain_generate_even_where_sampling_is_the_default(setup):
    model, _, inputs = setup
    expected, found = both(model, inputs, Greedy(), plain={"do_sample": False})
    assert torch.equal(expected, found)
    drawn = model.generate(**inputs, max_new_tokens=10, do_sample=True, custom_generate=Greedy())
    assert torch.equal(expected, drawn)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"temperature": 1.4, "top_p": 0.6}])
def test_sample_is_plain_sampling(setup, settings):
    model, _, inputs = setup
    plain = {"do_sample": True, "top_k": 0, **settings}
    answers = set()
    for seed in range(3):
        expected, found = both(model, inputs, Sample(**settings), seed, plain)
        assert torch.equal(expected, found)
        answers.add(tuple(found.flatten().tolist()))
    assert len(answers) > 1


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.3, 1.0])
def test_apc_is_min_p(setup, beta):
    model, _, inputs = setup
    plain = {"do_sample": True, "top_k": 0, "min_p": beta}
    for seed in range(3):
        expected, found = both(model, inputs, APC(beta), seed, plain)
        assert torch.equal(expected, found)


def test_apc_rules_something_out(setup):
    model, _, inputs = setup
    free, _ = both(model, inputs, Greedy(), plain={"do_sample": True, "top_k": 0})
    _, held = both(model, inputs, APC(0.3))
    assert not torch.equal(free, held)


def test_bias_moves_yes_and_nothing_else(setup):
    model, proc, inputs = setup

    def first(method):
        result = model.generate(
            **inputs, custom_generate=method, max_new_tokens=1, return_dict_in_generate=True, output_logits=True
        )
        return result.logits[0]

    plain, biased = first(Greedy()), first(ConstantBias(2.5, proc))
    yes = [tiny.WORDS.index(word) + 5 for word in ("Yes", "yes", "YES")]
    expected = plain.clone()
    for token in yes:
        expected[:, token] += 2.5
    torch.testing.assert_close(biased, expected)
    assert (first(ConstantBias(100, proc.tokenizer)).argmax(-1).unsqueeze(1) == torch.tensor(yes)).any(1).all()
    assert not (first(ConstantBias(-100, proc)).argmax(-1).unsqueeze(1) == torch.tensor(yes)).any()


def test_bias_without_a_processor(setup):
    model, _, inputs = setup
    with pytest.raises(ValueError, match=r"use ConstantBias\(bias, processor\)"):
        model.generate(**inputs, custom_generate=ConstantBias(1.0), max_new_tokens=1)


def byte_level_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """A tokenizer in the manner of GPT-2: a word with a space before it is a token of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary[word[:end]] = len(vocabulary)
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


class TestYesNo:
    def test_every_spelling_of_a_word_level_tokenizer(self):
        yes, no = yes_no_ids(tiny.processor().tokenizer)
        words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *tiny.WORDS]
        assert sorted(words[i] for i in yes) == ["YES", "Yes", "yes"]
        assert sorted(words[i] for i in no) == ["NO", "No", "no"]

    def test_with_a_space_before_and_without(self):
        tokenizer = byte_level_tokenizer("ĠYes", "ĠNo", "ĠNO", "Yes", "yes", "No")
        yes, no = yes_no_ids(tokenizer)
        # "YES" begins with the letter Y, and " yes" with a lone space: neither says yes.
        assert set(tokenizer.convert_ids_to_tokens(yes)) == {"Yes", "ĠYes", "yes"}
        assert set(tokenizer.convert_ids_to_tokens(no)) == {"No", "ĠNo", "ĠNO"}

    def test_a_tokenizer_without_them(self):
        with pytest.raises(ValueError, match="no single token for yes or for no"):
            yes_no_ids(byte_level_tokenizer("Yes"))

    def test_logits_add_up_the_spellings(self):
        tokenizer = tiny.processor().tokenizer
        yes, no = yes_no_ids(tokenizer)
        logits = torch.randn(4, len(tokenizer))
        p = logits.double().softmax(-1)
        found = yes_no_logits(logits, tokenizer)
        assert found.shape == (4, 2)
        odds = (p[:, yes].sum(-1) / p[:, no].sum(-1)).log()
        torch.testing.assert_close((found[:, 0] - found[:, 1]).double(), odds, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: Sample(temperature=0), "temperature is 0: it must be a number, above 0"),
        (lambda: Sample(top_p=1.2), "top_p is 1.2: it must be a number, above 0 and at most 1"),
        (lambda: APC(beta=math.nan), "beta is nan: it must be a number, at least 0 and at most 1"),
        (lambda: ConstantBias(math.inf), "bias is inf: it must be a number, finite"),
    ],
)
def test_refusals(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_the_table_of_methods():
    import json

    for name, method in METHODS.items():
        built = method()
        assert built.name == name
        assert method(**json.loads(json.dumps(built.settings()))).settings() == built.settings()
