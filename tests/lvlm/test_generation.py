"""What a checkpoint's generation config asks for is left out, said once, and applied only when asked for."""

import copy

import pytest
import torch

import iava
from iava.errors import IavaError
from tests import families, tiny

PICTURE = tiny.image(2)
QUESTION = "where is the blue boat on the street ?"
CHECKPOINT = {
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[7], [9, 11]],
    "suppress_tokens": [12, 13, 14],
    "begin_suppress_tokens": [15],
    "sequence_bias": [[[16], -5.0]],
    "min_new_tokens": 6,
    "do_sample": True,
    "temperature": 0.3,
    "top_k": 3,
    "top_p": 0.4,
    "num_beams": 3,
    "length_penalty": 2.0,
    "renormalize_logits": True,
    "exponential_decay_length_penalty": (2, 1.5),
    "forced_eos_token_id": 3,
    "guidance_scale": 1.5,
    "max_length": 5,
    "early_stopping": True,
}


def changed(name, **settings):
    """A family's model whose generation config asks for more."""
    model, processor = families.build(name)
    model = copy.deepcopy(model)
    part = model.language_model if hasattr(model, "language_model") else model
    for key, value in settings.items():
        setattr(part.generation_config, key, value)
    return model, processor


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl"])
@pytest.mark.parametrize("method", ["greedy", "iava", "sample"])
def test_answers_are_what_the_method_says(name, method):
    expected = iava.load(*families.build(name)).ask(PICTURE, QUESTION, method=method, seed=3, max_new_tokens=8)
    found = iava.load(*changed(name, **CHECKPOINT)).ask(PICTURE, QUESTION, method=method, seed=3, max_new_tokens=8)
    assert found.tokens == expected.tokens
    assert torch.equal(found.logits, expected.logits)
    assert found.generation == {}


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_what_is_left_out_is_recorded_and_said_once(name, capsys):
    settings = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "temperature": 1.0, "top_k": 50, "num_beams": 1}
    lvlm = iava.load(*changed(name, **settings))
    assert lvlm.generation_notes == {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    capsys.readouterr()
    for _ in range(2):
        lvlm.ask(PICTURE, QUESTION, max_new_tokens=1)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iava: ")]
    assert said == [
        "iava: the checkpoint asks for no_repeat_ngram_size=3, repetition_penalty=1.3, which is left out: "
        'generation="checkpoint" applies it'
    ]
    plain = iava.load(*families.build(name))
    assert plain.generation_notes == {}
    plain.ask(PICTURE, QUESTION, max_new_tokens=1)
    assert "iava: " not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["llava", "instructblip"])
@pytest.mark.parametrize("method", ["greedy", "iava"])
def test_settings_that_are_asked_for_apply_as_in_generate(name, method, capsys):
    model, processor = families.build(name)
    lvlm = iava.load(model, processor)
    inputs = families.inputs(name, (QUESTION, [PICTURE]))
    bound = lvlm.method(method)
    plain = lvlm.ask(PICTURE, QUESTION, method=bound, max_new_tokens=8).tokens
    settings = {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "suppress_tokens": plain[:2], "min_new_tokens": 6}
    row = model.generate(**inputs, custom_generate=bound, max_new_tokens=8, do_sample=False, **settings)
    expected = row[0, inputs["input_ids"].shape[1] :].tolist()
    expected = expected[: expected.index(2)] if 2 in expected else expected
    assert expected[0] != plain[0]
    capsys.readouterr()
    for one, generation in ((lvlm, settings), (iava.load(*changed(name, **settings)), "checkpoint")):
        found = one.ask(PICTURE, QUESTION, method=method, max_new_tokens=8, generation=generation)
        assert found.tokens == expected
        assert found.generation == settings
    assert "iava: " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("generation", "complaint"),
    [
        ({"repetition_penalti": 1.3}, "generation has no setting 'repetition_penalti': use one of bad_words_ids, "),
        ({"max_new_tokens": 3}, "generation has no setting 'max_new_tokens'"),
        ({"num_beams": 3}, "generation has no setting 'num_beams'"),
        (
            {"repetition_penalty": -1},
            "generation sets repetition_penalty to -1: `penalty` has to be a strictly positive",
        ),
        ({"top_p": 7.0}, "generation sets top_p to 7.0"),
        ({"temperature": -1.0}, "generation sets temperature to -1.0"),
        ({"bad_words_ids": [7]}, "generation sets bad_words_ids to"),
        ("greedy", "generation is 'greedy': it must be \"checkpoint\" or settings"),
        (3, "generation is 3: it must be"),
    ],
)
def test_settings_that_are_none_get_one_line(generation, complaint):
    lvlm = iava.load(*families.build("llava"))
    with pytest.raises(IavaError) as caught:
        lvlm.ask(PICTURE, QUESTION, generation=generation, max_new_tokens=1)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["x", [2, None], [[2]], 1.5])
def test_end_tokens_that_are_no_ids_get_one_line(value):
    model, processor = changed("llava", eos_token_id=value)
    with pytest.raises(IavaError, match=r"eos_token_id in the generation config is .*: it must hold token ids"):
        iava.load(model, processor).ask(PICTURE, QUESTION, max_new_tokens=1)


@pytest.mark.parametrize("name", ["llava", "instructblip"])
def test_an_answer_ends_with_the_end_token_of_the_model_its_language_model_or_the_tokenizer(name):
    """InstructBLIP with Vicuna: the language model says 1, the tokenizer 2."""
    model, processor = changed(name)
    lvlm = iava.load(model, processor)
    configs = [model.generation_config]
    if hasattr(model, "language_model"):
        configs.append(model.language_model.generation_config)
    for config in configs:
        config.eos_token_id = 1
    tokenizer, ids = processor.tokenizer, []
    # The models have more tokens than the tokenizer.
    known = {"suppress_tokens": list(range(len(tokenizer), model.get_input_embeddings().weight.shape[0]))}
    asked = {"method": "greedy", "max_new_tokens": 6, "generation": known}
    # Answers of random weights go on, so a token in the middle is made the end.
    whole = lvlm.ask(PICTURE, QUESTION, **asked).tokens
    for change in (
        lambda token: setattr(configs[0], "eos_token_id", token),
        lambda token: setattr(configs[-1], "eos_token_id", [1, token]),
        lambda token: setattr(tokenizer, "eos_token", tokenizer.convert_ids_to_tokens(token)),
    ):
        before = [config.eos_token_id for config in configs], tokenizer.eos_token
        change(whole[2])
        try:
            ids.append(lvlm.ask(PICTURE, QUESTION, **asked).tokens)
        finally:
            for config, old in zip(configs, before[0], strict=True):
                config.eos_token_id = old
            tokenizer.eos_token = before[1]
    assert ids == [whole[: whole.index(whole[2])]] * 3
