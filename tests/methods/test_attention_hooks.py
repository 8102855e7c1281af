"""What holds for every method that changes how the decoder attends."""

import pytest
import torch

from iava import ONLY, PAI, SID, load
from tests import families, tiny
from tests.families import FAMILIES
from tests.test_families import ASKED, PICTURES, decoder, state

METHODS = [
    PAI(alpha=0.8, gamma=1.7, start=1),
    SID(keep=0.3, early=1, alpha=1.0),
    ONLY(gamma=1.0, beta=0.01),
]
NOTHING = [PAI(alpha=0, gamma=1, beta=0), SID(alpha=0, beta=0), ONLY(gamma=2, alpha1=0, beta=0)]
QUESTIONS = [question for question, _ in ASKED]


def named(methods):
    return pytest.mark.parametrize("method", methods, ids=[method.name for method in methods])


def on(method, model):
    """The method, given the whole model as some families need it."""
    settings = {**method.settings(), "model": model}
    return type(method)(**settings)


@named(NOTHING)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_no_contrast_is_plain_generate(method, options):
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED[:2])
    torch.manual_seed(5)
    plain = model.generate(**inputs, max_new_tokens=5, **options)
    torch.manual_seed(5)
    assert torch.equal(plain, model.generate(**inputs, custom_generate=method, max_new_tokens=5, **options))


@named(METHODS)
def test_beams_score_what_each_beam_says(method):
    """The score of a beam is the sum of the log probabilities that its tokens get when they are all there is."""
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED[:2])
    found = model.generate(
        **inputs,
        custom_generate=method,
        max_new_tokens=3,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    width = inputs["input_ids"].shape[1]
    for row, score in enumerate(found.sequences_scores.tolist()):
        wanted = found.sequences[row, width:].tolist()
        one = families.inputs("llava", ASKED[row // 2])

        def only_these(_batch, ids, wanted=wanted, start=one["input_ids"].shape[1]):
            return [wanted[len(ids) - start]] if len(ids) - start < len(wanted) else [2]

        alone = model.generate(
            **one,
            custom_generate=method,
            max_new_tokens=len(wanted),
            prefix_allowed_tokens_fn=only_these,
            return_dict_in_generate=True,
            output_logits=True,
        )
        steps = [
            logits[0].log_softmax(-1)[token] for logits, token in zip(alone.logits, wanted, strict=False) if token != 0
        ]
        assert score == pytest.approx(float(sum(steps)), abs=1e-3)


@named(METHODS)
def test_static_cache(method):
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED)
    dynamic, static = (
        model.generate(**inputs, custom_generate=method, max_new_tokens=5, cache_implementation=kind)
        for kind in ("dynamic", "static")
    )
    assert torch.equal(dynamic, static)


@named(METHODS)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_every_family_a_batch_and_what_begins_alike(method, name):
    """Three prompts, two about the same image, get together what they get alone."""
    model, _ = families.build(name)
    asked = [(QUESTIONS[0], PICTURES[:1]), ASKED[1], (QUESTIONS[2], PICTURES[:1])]
    made = on(method, model)

    def new(*some):
        inputs = families.inputs(name, *some)
        out = model.generate(**inputs, custom_generate=made, max_new_tokens=3)
        return [row[: row.index(2)] if 2 in row else row for row in out[:, inputs["input_ids"].shape[1] :].tolist()]

    assert new(*asked) == [new(one)[0] for one in asked]
    inputs = families.inputs(name, asked[1])
    model.generate(**inputs, max_new_tokens=3)
    before = state(model)
    model.generate(**inputs, custom_generate=made, max_new_tokens=3)
    assert state(model) == before


@named(METHODS)
def test_a_prefix_cache_holds_what_no_hook_changed(method):
    lvlm = load(tiny.model(1), tiny.processor())
    picture = tiny.image(2)
    alone = [lvlm.ask(picture, q, method=method, max_new_tokens=4) for q in QUESTIONS]
    plain = lvlm.ask(picture, QUESTIONS[0], method="greedy", max_new_tokens=4)
    reading = lvlm.read(picture)
    later = [reading.ask(q, method=method, max_new_tokens=4) for q in QUESTIONS]
    for found, expected in zip(
        [*later, reading.ask(QUESTIONS[0], method="greedy", max_new_tokens=4)], [*alone, plain], strict=True
    ):
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=1e-4)


@named(METHODS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_the_model_is_left_as_found_whenever_it_fails(method, attention, call):
    model, proc = tiny.model(attention=attention), tiny.processor()
    inputs = tiny.inputs(proc, PICTURES[0], *QUESTIONS)
    before = model.generate(**inputs, custom_generate=method, max_new_tokens=3)
    found, calls = state(model), iter(range(100))

    def fail(*_args):
        if next(calls) == call:
            raise KeyboardInterrupt

    handle = decoder(model).layers[-1].mlp.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        model.generate(**inputs, custom_generate=method, max_new_tokens=3)
    handle.remove()
    assert state(model) == found
    assert torch.equal(before, model.generate(**inputs, custom_generate=method, max_new_tokens=3))


@named(METHODS)
def test_half_precision(method):
    model, proc = tiny.model().to(torch.bfloat16), tiny.processor()
    inputs = tiny.inputs(proc, PICTURES[0], *QUESTIONS)
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    found = model.generate(
        **inputs, custom_generate=method, max_new_tokens=3, return_dict_in_generate=True, output_logits=True
    )
    assert not any(logits.isnan().any() for logits in found.logits)


@named(METHODS)
def test_refusals(method):
    model, proc = tiny.model(), tiny.processor()
    with pytest.raises(ValueError, match="none of the prompts has image tokens"):
        model.generate(
            **proc.tokenizer([tiny.prompt("What ?", images=0)], return_tensors="pt"),
            custom_generate=method,
            max_new_tokens=1,
        )
    blip, _ = families.build("instructblip")
    with pytest.raises(ValueError, match=rf"give the method the whole model, {type(method).__name__}\("):
        blip.generate(**families.inputs("instructblip", ASKED[0]), custom_generate=method, max_new_tokens=1)
