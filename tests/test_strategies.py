"""Every way to decode that `generate` knows, with the contrast in it."""

import time
from functools import partial

import pytest
import torch
from transformers import (
    GenerationConfig,
    StaticCache,
    StoppingCriteriaList,
    StopStringCriteria,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)

from iava import IAVA, Greedy
from tests import naive, tiny

PICTURE = tiny.image(2)
QUESTIONS = ["Is there a dog ?", "where is the blue boat ?"]
# What stop strings are matched against: each token behind this word.
PREFIX = "abcdef"


@pytest.fixture
def setup():
    model, proc = tiny.model(4), tiny.processor()
    # Nothing ends an answer but what a test asks for: special tokens are not said.
    with torch.no_grad():
        model.lm_head.weight[:5] = 0
    return model, proc, tiny.inputs(proc, PICTURE, *QUESTIONS)


def expected(model, proc, steps, question=QUESTIONS[0]):
    return naive.Branches(model, proc, PICTURE, question).decode(steps, end=-1)


class TestStreaming:
    def test_tokens_come_one_by_one_after_the_prompt(self, setup):
        model, proc, _ = setup
        inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])

        class Seen(TextStreamer):
            def __init__(self):
                self.parts, self.ended = [], False

            def put(self, value):
                self.parts.append(value.tolist())

            def end(self):
                self.ended = True

        seen = Seen()
        found = model.generate(
            **inputs, custom_generate=partial(IAVA(proc, negative="zeros"), streamer=seen), max_new_tokens=5
        )
        tokens = expected(model, proc, 5)
        assert seen.parts == [inputs["input_ids"].tolist(), *[[token] for token in tokens]]
        assert seen.ended
        assert found[0, -len(tokens) :].tolist() == tokens

    def test_an_iterator_gives_the_text(self, setup):
        model, proc, _ = setup
        streamer = TextIteratorStreamer(proc.tokenizer, skip_prompt=True, timeout=60)
        inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
        model.generate(
            **inputs, custom_generate=partial(IAVA(proc, negative="zeros"), streamer=streamer), max_new_tokens=5
        )
        assert "".join(streamer).split() == proc.decode(expected(model, proc, 5)).split()

    def test_beams_cannot_stream(self, setup):
        model, proc, _ = setup
        inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
        made = partial(IAVA(proc, negative="zeros"), streamer=TextStreamer(proc.tokenizer))
        with pytest.raises(ValueError, match="beam search has no tokens to stream"):
            model.generate(**inputs, custom_generate=made, max_new_tokens=2, num_beams=2)


def test_stop_strings(setup):
    model, proc, _ = setup
    tokens = expected(model, proc, 6)
    inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
    proc.tokenizer.add_tokens([PREFIX])
    stop = StoppingCriteriaList([StopStringCriteria(proc.tokenizer, [proc.decode([tokens[2]])])])
    found = model.generate(
        **inputs, custom_generate=IAVA(proc, negative="zeros"), max_new_tokens=6, stopping_criteria=stop
    )
    first = tokens.index(tokens[2])
    assert found[0, inputs["input_ids"].shape[1] :].tolist() == tokens[: first + 1]


def test_every_end_token_of_the_config_ends(setup):
    model, proc, _ = setup
    tokens = expected(model, proc, 6)
    inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
    config = GenerationConfig(max_new_tokens=6, eos_token_id=[2, tokens[3]], pad_token_id=0)
    found = model.generate(**inputs, custom_generate=IAVA(proc, negative="zeros"), generation_config=config)
    first = tokens.index(tokens[3])
    assert found[0, inputs["input_ids"].shape[1] :].tolist() == tokens[: first + 1]


def test_max_time_ends_before_max_new_tokens(setup):
    model, proc, inputs = setup
    slow = IAVA(proc, negative="zeros")
    combine = slow.combine

    def wait(*args):
        time.sleep(0.05)
        return combine(*args)

    slow.combine = wait
    found = model.generate(**inputs, custom_generate=slow, max_new_tokens=150, max_time=0.2)
    assert 1 <= found.shape[1] - inputs["input_ids"].shape[1] < 50


@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
@pytest.mark.parametrize("kind", ["implementation", "object"])
def test_static_cache(setup, negative, kind):
    model, proc, inputs = setup
    made = IAVA(proc, negative=negative)
    dynamic = model.generate(**inputs, custom_generate=made, max_new_tokens=6)
    if kind == "implementation":
        options = {"cache_implementation": "static"}
    else:
        options = {"past_key_values": StaticCache(config=model.get_decoder().config, max_cache_len=64)}
    assert torch.equal(dynamic, model.generate(**inputs, custom_generate=made, max_new_tokens=6, **options))


@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
        {"num_beams": 2, "do_sample": True},
    ],
)
def test_no_contrast_is_plain_generate(setup, negative, options):
    model, proc, inputs = setup
    torch.manual_seed(7)
    plain = model.generate(**inputs, max_new_tokens=6, **options)
    torch.manual_seed(7)
    made = IAVA(proc, alpha=0, beta=0, negative=negative)
    assert torch.equal(plain, model.generate(**inputs, max_new_tokens=6, custom_generate=made, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, proc = tiny.model().to(dtype), tiny.processor()
    inputs = tiny.inputs(proc, PICTURE, *QUESTIONS)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    found = model.generate(
        **inputs,
        custom_generate=IAVA(proc, negative="zeros"),
        max_new_tokens=4,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert found.logits[0].dtype == torch.float32
    assert not any(logits.isnan().any() for logits in found.logits)
    # What two rows of half precision would give differs from what float32 makes of them.
    assert not torch.equal(found.logits[1], found.logits[1].to(dtype).float())


def test_the_returned_cache_is_the_first_branchs(setup):
    model, proc, inputs = setup
    plain = model.generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
    found = model.generate(
        **inputs, custom_generate=IAVA(proc, alpha=0, beta=0), max_new_tokens=3, return_dict_in_generate=True
    )
    tokens = torch.nn.functional.pad(inputs["attention_mask"], (0, 2), value=1)[:, None, :, None]
    for ours, theirs in zip(found.past_key_values.layers, plain.past_key_values.layers, strict=True):
        torch.testing.assert_close(ours.keys * tokens, theirs.keys * tokens, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.values * tokens, theirs.values * tokens, atol=1e-4, rtol=1e-4)


def test_the_pipeline(setup):
    model, proc, _ = setup
    pipe = pipeline("image-text-to-text", model=model, processor=proc)
    found = pipe(
        images=PICTURE,
        text=tiny.prompt(QUESTIONS[0]),
        return_full_text=False,
        generate_kwargs={"custom_generate": IAVA(proc, negative="zeros"), "max_new_tokens": 5},
    )
    assert found[0]["generated_text"].split() == proc.decode(expected(model, proc, 5)).split()


def test_greedy_without_a_second_branch_streams_too(setup):
    model, proc, _ = setup
    inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
    streamer = TextIteratorStreamer(proc.tokenizer, skip_prompt=True, timeout=60)
    found = model.generate(**inputs, custom_generate=partial(Greedy(), streamer=streamer), max_new_tokens=4)
    new = found[0, inputs["input_ids"].shape[1] :]
    assert "".join(streamer).split() == proc.decode(new).split()
