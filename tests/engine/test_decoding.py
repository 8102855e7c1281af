"""Calls of `generate` beside the usual ones: each is served, or refused in one line."""

import copy

import pytest
import torch
from transformers import Cache, DynamicCache, GenerationConfig, QuantizedCache, StaticCache
from transformers.cache_utils import DynamicLayer

import iava
from iava.engine import hf
from iava.errors import IavaError
from iava.methods.registry import BUILT_IN
from tests import families, tiny

PICTURE = tiny.image(2)
QUESTIONS = ["Is there a dog ?", "where is the blue boat ?"]
# The others need questions of their own.
METHODS = sorted(BUILT_IN.keys() - {"oracle", "prompt-bias", "brief", "verify", "best-of"})
NEEDS_AN_END = {"end-bias", "token-limit"}
"""The methods that refuse a call in which nothing ends an answer."""


@pytest.fixture
def setup():
    model, proc = tiny.model(4), tiny.processor()
    return model, proc, tiny.inputs(proc, PICTURE, *QUESTIONS)


def refused(model, inputs, method, **options) -> str:
    with pytest.raises(IavaError) as caught:
        model.generate(**inputs, custom_generate=method, **{"max_new_tokens": 2, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_lookup_num_tokens": 3},
        {"dola_layers": "low"},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 0.5},
        {"force_words_ids": [[5]], "num_beams": 2},
        {"constraints": [object()], "num_beams": 2},
        {"assistant_early_exit": 1},
    ],
)
@pytest.mark.parametrize("name", ["iava", "greedy"])
def test_options_that_choose_another_loop_are_refused_by_name(setup, name, options):
    model, proc, inputs = setup
    method = iava.load(model, proc).method(name)
    option = next(iter(options))
    assert refused(model, inputs, method, **options) == f"the method cannot serve {option}: leave it out of generate"
    config = GenerationConfig(max_new_tokens=2, **options)
    assert f"cannot serve {option}" in refused(model, inputs, method, generation_config=config, max_new_tokens=None)


def test_an_assistant_is_refused(setup):
    model, proc, inputs = setup
    assert "cannot serve assistant_model" in refused(model, inputs, iava.IAVA(proc), assistant_model=tiny.model(5))


def test_offloaded_caches_are_refused(setup):
    model, proc, inputs = setup
    wanted = "the cache is offloaded, and branches cannot stand side by side in it: use a dynamic or a static cache"
    cache = DynamicCache()
    # What DynamicCache(offloading=True) sets. torch's build for GPUs makes such a cache only where there is one.
    cache.offloading = True
    assert refused(model, inputs, iava.IAVA(proc), **{hf.CACHE: cache}) == wanted


def test_quantized_caches_are_refused(setup):
    class Quantized(QuantizedCache):
        """Needs no package that quantizes."""

        def __init__(self):
            Cache.__init__(self, layer_class_to_replicate=DynamicLayer)

    model, proc, inputs = setup
    wanted = "the cache is quantized, and branches cannot stand side by side in it: use a dynamic or a static cache"
    assert refused(model, inputs, iava.IAVA(proc), **{hf.CACHE: Quantized()}) == wanted
    plain = model.generate(**inputs, max_new_tokens=4)
    one_branch = model.generate(**inputs, custom_generate=iava.Greedy(), max_new_tokens=4, **{hf.CACHE: Quantized()})
    assert torch.equal(one_branch, plain)


@pytest.mark.parametrize("name", ["iava", "vcd", "pai"])
def test_flex_attention_is_refused(setup, name):
    model, proc, inputs = setup
    model.get_decoder().set_attn_implementation("flex_attention")
    method = iava.load(model, proc).method(name)
    assert "load the model with attn_implementation='sdpa'" in refused(model, inputs, method)
    with pytest.raises(IavaError, match="flex_attention, which shows no attention to single tokens"):
        iava.probe(model, **inputs)
    with pytest.raises(IavaError, match="flex_attention, which shows no attention to single tokens"):
        iava.load(model, proc).ask(PICTURE, QUESTIONS[0], method=name)


def test_gradient_checkpointing_is_refused_in_train_mode_only(setup):
    model, proc, inputs = setup
    expected = model.generate(**inputs, custom_generate=iava.IAVA(proc), max_new_tokens=4)
    answer = iava.load(model, proc).ask(PICTURE, QUESTIONS[0], max_new_tokens=4)
    model.gradient_checkpointing_enable()
    assert torch.equal(model.generate(**inputs, custom_generate=iava.IAVA(proc), max_new_tokens=4), expected)
    model.train()
    assert "keeps no cache to decode with: call model.eval()" in refused(model, inputs, iava.IAVA(proc))
    # `ask` sets the mode itself, and puts it back.
    assert iava.load(model, proc).ask(PICTURE, QUESTIONS[0], max_new_tokens=4).tokens == answer.tokens
    assert model.training


def test_embeddings_without_ids_are_refused(setup):
    model, proc, inputs = setup
    alone = {
        "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"]),
        "attention_mask": inputs["attention_mask"],
    }
    assert refused(model, alone, iava.IAVA(proc)) == (
        "generate was given inputs_embeds alone, which do not say where the image is: add input_ids"
    )
    plain = model.generate(**alone, max_new_tokens=4)
    assert torch.equal(model.generate(**alone, custom_generate=iava.Greedy(), max_new_tokens=4), plain)


@pytest.mark.parametrize("name", METHODS)
def test_without_use_cache_the_answer_is_the_same(setup, name):
    """The cache is the method's own; the option chooses only how a plain loop computes."""
    model, proc, inputs = setup
    method = iava.load(model, proc).method(name)
    options = {"max_new_tokens": 4, "seed": 3}
    expected = model.generate(**inputs, custom_generate=method, **options)
    assert torch.equal(model.generate(**inputs, custom_generate=method, use_cache=False, **options), expected)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_videos_are_refused(family):
    model, proc = families.build(family)
    inputs = families.inputs(family, ("What ?", [PICTURE]))
    video = {name: value.clone() for name, value in inputs.items()}
    video["pixel_values_videos"], video["video_grid_thw"] = video.pop("pixel_values"), video.pop("image_grid_thw")
    video["input_ids"][video["input_ids"] == model.config.image_token_id] = model.config.video_token_id
    video["mm_token_type_ids"][video["mm_token_type_ids"] == 1] = 2
    for name in ("iava", "vcd", "pai"):
        method = iava.load(model, proc).method(name)
        assert "reads images, not videos: leave out pixel_values_videos" in refused(model, video, method)
    plain = model.generate(**video, max_new_tokens=3)
    assert torch.equal(model.generate(**video, custom_generate=iava.Greedy(), max_new_tokens=3), plain)


@pytest.mark.parametrize("name", sorted(set(METHODS) - NEEDS_AN_END))
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_a_cache_of_the_callers_own_comes_back_with_the_callers_rows(setup, name, kind):
    """The next turn goes on from it, and says what a model without cache says."""
    model, proc, inputs = setup
    cache = DynamicCache() if kind == "dynamic" else StaticCache(config=model.get_decoder().config, max_cache_len=64)
    method = iava.load(model, proc).method(name)
    plain = {"eos_token_id": None, "max_new_tokens": 3}
    first = model.generate(**inputs, custom_generate=method, seed=1, **{hf.CACHE: cache}, **plain)
    assert len(cache.layers[0].keys) == len(QUESTIONS)
    assert int(cache.get_seq_length()) == first.shape[1] - 1
    ids = torch.cat([first, torch.full((2, 2), 30)], dim=1)
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 5), value=1)
    following = model.generate(input_ids=ids, attention_mask=mask, **{hf.CACHE: cache}, **plain)
    whole = model.generate(
        input_ids=ids, attention_mask=mask, pixel_values=inputs["pixel_values"], use_cache=False, **plain
    )
    assert torch.equal(following, whole)


@pytest.mark.parametrize("name", ["iava", "icd", "only", "vcd", "greedy"])
def test_attentions_and_hidden_states_are_the_main_branchs(setup, name):
    """They equal those of one eager forward of the whole answer."""
    model, proc, inputs = setup
    model.set_attn_implementation("eager")
    method = iava.load(model, proc).method(name)
    found = model.generate(
        **inputs,
        custom_generate=method,
        max_new_tokens=4,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
    with torch.no_grad():
        whole = copy.deepcopy(model)(
            input_ids=found.sequences,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            pixel_values=inputs["pixel_values"],
            output_attentions=True,
            output_hidden_states=True,
        )
    start = inputs["input_ids"].shape[1]
    spans = [slice(0, start), *(slice(n, n + 1) for n in range(start, start + 3))]
    assert len(found.attentions) == len(found.hidden_states) == len(spans)
    for step, span in enumerate(spans):
        seen = mask[:, span, None].bool()
        for ours, theirs in zip(found.attentions[step], whole.attentions, strict=True):
            expected = theirs[:, :, span, : span.stop]
            assert ours.shape == expected.shape
            torch.testing.assert_close(ours * seen[:, None], expected * seen[:, None], atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(found.hidden_states[step], whole.hidden_states, strict=True):
            torch.testing.assert_close(ours * seen, theirs[:, span] * seen, atol=1e-4, rtol=1e-4)
