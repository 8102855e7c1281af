import pytest
import torch
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria

from iava import IAVA
from tests import naive, tiny

PICTURE = tiny.image(2)
QUESTIONS = ["Is there a dog ?", "where is the blue boat ?"]


@pytest.fixture
def setup():
    model, proc = tiny.model(4), tiny.processor()
    return model, proc, tiny.inputs(proc, PICTURE, *QUESTIONS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.3},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "temperature": 1.7, "top_p": 0.8, "repetition_penalty": 1.3},
        {"use_cache": False},
        {"min_new_tokens": 6, "eos_token_id": [2, 50, 14]},
    ],
)
def test_no_contrast_is_plain_generate(setup, options):
    model, proc, inputs = setup
    torch.manual_seed(7)
    plain = model.generate(**inputs, max_new_tokens=8, **options)
    torch.manual_seed(7)
    method = IAVA(proc, alpha=0, beta=0)
    assert torch.equal(plain, model.generate(**inputs, max_new_tokens=8, custom_generate=method, **options))


def test_beams_carry_both_branches_with_them(setup):
    """The score of a returned beam is the sum of the contrasted log probabilities of its tokens."""
    model, proc, inputs = setup
    result = model.generate(
        **inputs,
        custom_generate=IAVA(proc, negative="zeros"),
        max_new_tokens=5,
        num_beams=4,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_scores=True,
    )
    beams = result.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    assert len({tuple(beam) for beam in beams}) == 4
    for beam, score, question in zip(
        beams, result.sequences_scores.tolist(), [q for q in QUESTIONS for _ in range(2)], strict=True
    ):
        branches = naive.Branches(model, proc, PICTURE, question)
        tokens = beam[: beam.index(2) + 1] if 2 in beam else beam
        steps = [branches.logits(tokens[:n]).log_softmax(-1)[token] for n, token in enumerate(tokens)]
        assert score == pytest.approx(float(sum(steps)) / len(tokens), abs=1e-4)


def test_scores_stopping_criteria_and_logits_processors(setup):
    model, proc, inputs = setup
    asked = naive.Branches(model, proc, PICTURE, QUESTIONS[0]).decode(3)

    class Forbid(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.index_fill(1, torch.tensor([asked[0]]), -torch.inf)

    class AfterTwo(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= inputs["input_ids"].shape[1] + 2)

    result = model.generate(
        **inputs,
        custom_generate=IAVA(proc, negative="zeros"),
        max_new_tokens=9,
        logits_processor=[Forbid()],
        stopping_criteria=[AfterTwo()],
        return_dict_in_generate=True,
        output_logits=True,
        output_scores=True,
    )
    assert result.sequences.shape[1] == inputs["input_ids"].shape[1] + 2
    assert len(result.scores) == 2
    expected = naive.Branches(model, proc, PICTURE, QUESTIONS[0]).logits([])
    torch.testing.assert_close(result.logits[0][0], expected, atol=1e-4, rtol=1e-4)
    assert result.scores[0][0, asked[0]] == -torch.inf
    assert asked[0] not in result.sequences[0, -2:].tolist()


def test_static_cache(setup):
    model, proc, inputs = setup
    dynamic, static = (
        model.generate(
            **inputs, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=6, cache_implementation=kind
        )
        for kind in ("dynamic", "static")
    )
    assert torch.equal(dynamic, static)


def test_a_cache_that_holds_tokens_is_refused(setup):
    model, proc, inputs = setup
    cache = DynamicCache(config=model.get_decoder().config)
    model.generate(**inputs, past_key_values=cache, max_new_tokens=2)
    with pytest.raises(ValueError, match="already holds tokens"):
        model.generate(**inputs, past_key_values=cache, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=2)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [0, 1, 2, 3, 5])
def test_the_model_is_left_as_found_whenever_it_fails(setup, error, call):
    """Fails in the question's pass, the general pass, the second branch and the decoding steps in turn."""
    model, proc, inputs = setup
    before = model.generate(**inputs, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=6)
    forward, calls = model.forward, iter(range(100))

    def fail(*_args):
        if next(calls) == call:
            raise error

    layer = model.model.language_model.layers[-1]
    handle = layer.register_forward_hook(fail)
    with pytest.raises(error):
        model.generate(**inputs, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=6)
    handle.remove()
    assert model.forward == forward
    assert not model.get_decoder()._forward_pre_hooks
    assert model.get_decoder().config._attn_implementation == model.config._attn_implementation == "sdpa"
    assert torch.equal(before, model.generate(**inputs, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=6))
