"""What the engine needs of transformers' internals. A failure here says which seam a release has moved."""

import inspect
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin, QuantizedCache, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer

from iava.engine import hf
from tests import families, tiny

QUESTION = ("Is there a dog ?", [tiny.image(1)])


class Caught(Exception):  # noqa: N818
    pass


def test_the_cache_has_one_name_in_arguments_outputs_and_loops():
    """If this fails, the cache got another name: see `hf.CACHE`."""
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "What ?")
    decoder, handed = model.get_decoder(), {}
    for callable in (model.forward, decoder.forward, decoder.layers[0].forward, decoder.layers[0].self_attn.forward):
        assert hf.CACHE in inspect.signature(callable).parameters, callable

    def loop(_model, _input_ids, **kwargs):
        handed.update(kwargs)
        raise Caught

    with pytest.raises(Caught):
        model.generate(**inputs, custom_generate=loop, max_new_tokens=1)
    assert isinstance(handed[hf.CACHE], DynamicCache)
    cache = hf.new_cache(model)
    with torch.no_grad():
        outputs = model(**inputs, use_cache=True, **{hf.CACHE: cache})
    assert outputs[hf.CACHE] is cache
    generated = model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True)
    assert isinstance(generated[hf.CACHE], DynamicCache)


class Recording(hf.LoopModel):
    def __init__(self, model: Any, generator: torch.Generator | None = None) -> None:
        super().__init__(model, generator)
        self.calls: list[str] = []

    def __call__(self, **inputs: Any) -> Any:
        self.calls.append("step")
        return self.model(**inputs)

    def prefill(self, input_ids, model_kwargs, read):
        self.calls.append("prefill")
        return read()

    def reorder(self, cache, beams):
        self.calls.append("reorder")
        cache.reorder_cache(beams.long())


def through_loop(generator=None, **options):
    """The sequences of a plain run, and of one through a `LoopModel`, which is given as well."""
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    recording = Recording(model, generator)

    def loop(_model, input_ids, *, generation_config, **kwargs):
        return hf.decoding_loop(model, generation_config)(
            recording, input_ids, generation_config=generation_config, **kwargs
        )

    options = {"max_new_tokens": 4, "eos_token_id": None, **options}
    torch.manual_seed(3)
    plain = model.generate(**inputs, **options)
    torch.manual_seed(3)
    return plain, model.generate(**inputs, custom_generate=loop, **options), recording.calls


def test_the_sampling_loop_reads_the_prompt_by_prefill_and_calls_the_model_for_each_token():
    """If this fails, `_sample` no longer calls `self._prefill` first, then `self(...)`: see `hf.LoopModel`."""
    for options in ({}, {"do_sample": True}):
        plain, found, calls = through_loop(**options)
        assert torch.equal(plain, found)
        assert calls == ["prefill", "step", "step", "step"]


def test_beam_search_does_so_as_well_and_moves_the_cache_by_reorder_cache():
    """If this fails, `_beam_search` no longer calls `self._prefill` or `self._reorder_cache`: see `hf.LoopModel`."""
    plain, found, calls = through_loop(num_beams=3)
    assert torch.equal(plain, found)
    assert [calls.count(name) for name in ("prefill", "step")] == [1, 3]
    assert calls.count("reorder") >= 3


def test_beam_sampling_draws_from_the_given_generator():
    """If this fails, beam search draws elsewhere than in `_get_top_k_continuations`: see `hf.LoopModel`."""

    def drawn(seed):
        return through_loop(torch.Generator().manual_seed(seed), num_beams=3, do_sample=True, top_k=0)[1].tolist()

    assert drawn(1) == drawn(1)
    assert len({str(drawn(seed)) for seed in range(5)}) > 1
    # `through_loop` sets this seed before it starts.
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(after, torch.get_rng_state())


def test_no_loop_compiles_a_call_behind_the_loop_models_back():
    """If this fails, loops ask another method whether they may compile: see `_valid_auto_compile_criteria`."""
    assert hasattr(GenerationMixin, "_valid_auto_compile_criteria")
    assert hf.LoopModel(tiny.model())._valid_auto_compile_criteria({}, GenerationConfig()) is False


def arguments_of(name, model):
    inputs = families.inputs(name, QUESTION)
    found = {}

    def loop(_model, input_ids, **kwargs):
        found.update(hf.generate_arguments(model))
        raise Caught

    with pytest.raises(Caught):
        families.build(name)[0].generate(**inputs, custom_generate=loop, max_new_tokens=1, num_beams=2)
    return inputs, found


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "instructblip"])
def test_what_generate_was_given_is_found_in_its_frame(name):
    """If this fails, `generate` is called otherwise or names its variables otherwise: see `hf.generate_arguments`."""
    inputs, found = arguments_of(name, families.build(name)[0])
    assert torch.equal(found["pixel_values"], inputs["pixel_values"])
    # Not those that are repeated for the beams.
    assert torch.equal(found["input_ids"], inputs["input_ids"])
    assert hf.generate_arguments(families.build(name)[0]) == {}


def test_instructblip_keeps_what_its_vision_tower_saw_beside_them():
    """If this fails, InstructBLIP's `generate` calls its `image_features` otherwise: see `engine.qformer`."""
    model, _ = families.build("instructblip")
    inputs, found = arguments_of("instructblip", model)
    with torch.no_grad():
        expected = model.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
    assert torch.equal(found["image_features"].vision_outputs.last_hidden_state, expected)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_a_private_view_numbers_prompts_and_leaves_the_offsets_on_the_model_alone(name):
    """If this fails, families keep the offset of their 3-D positions elsewhere: see `hf.private_view`."""
    model, _ = families.build(name)
    inputs = families.inputs(name, QUESTION)
    handed = {}

    def loop(_model, _input_ids, **kwargs):
        handed.update(kwargs)
        raise Caught

    with pytest.raises(Caught):
        model.generate(**inputs, custom_generate=loop, max_new_tokens=1)
    mark = torch.full((1, 1), 7)
    model.model.rope_deltas = mark
    assert torch.equal(hf.prompt_positions(model, inputs["input_ids"], inputs), handed["position_ids"])
    view = hf.private_view(model)
    assert view.get_decoder() is model.get_decoder()
    expected = model.generate(**inputs, max_new_tokens=3)
    model.model.rope_deltas = mark
    assert torch.equal(view.generate(**inputs, max_new_tokens=3), expected)
    assert model.model.rope_deltas is mark


def test_models_without_offsets_are_their_own_view():
    model = tiny.model()
    assert hf.private_view(model) is model


def test_positions_do_not_number_the_padding():
    """If this fails, `_prepare_position_ids_for_generation` is gone: see `hf.prompt_positions`."""
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    found = hf.prompt_positions(model, inputs["input_ids"], inputs)
    assert found[0].tolist() == list(range(18))
    assert found[1, 3:].tolist() == list(range(15))


def test_caches_that_cannot_be_split_into_rows_are_told_apart():
    """If this fails, quantized or offloaded caches are marked otherwise: see `hf.cache_kind`."""
    config = tiny.model().get_decoder().config
    assert hf.cache_kind(DynamicCache()) is None
    assert hf.cache_kind(StaticCache(config=config, max_cache_len=8)) is None
    if torch.version.cuda is None or torch.cuda.is_available():
        assert hf.cache_kind(DynamicCache(offloading=True)) == "offloaded"
    assert hf.cache_kind(object.__new__(QuantizedCache)) == "quantized"


def test_layers_that_recompute_their_activations_are_known():
    """If this fails, gradient checkpointing is marked otherwise: see `hf.recomputes`."""
    model = tiny.model()
    for enabled in (False, True):
        if enabled:
            model.gradient_checkpointing_enable()
        for training in (False, True):
            model.train(training)
            assert hf.recomputes(model) == (enabled and training)


def filled(layer, columns=6):
    keys = torch.arange(columns, dtype=torch.float32).view(1, 1, columns, 1)
    layer.update(keys, -keys)
    return layer


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (DynamicLayer(), 8),
        (DynamicSlidingWindowLayer(sliding_window=5), 4),
        (DynamicSlidingWindowLayer(sliding_window=20), 8),
        (StaticLayer(max_cache_len=10), 12),
    ],
)
def test_layers_are_told_that_they_hold_more_columns(layer, kept):
    """If this fails, cache layers count their columns otherwise: see `hf.resize_layer`."""
    filled(layer)
    assert hf.resize_layer(layer, 2) == kept
    if not isinstance(layer, DynamicLayer) or isinstance(layer, DynamicSlidingWindowLayer):
        assert int(layer.get_seq_length()) == 8


@pytest.mark.parametrize("name", ["llava", "blip-2", "qwen2_vl", "gemma3"])
def test_bytes_of_a_column_are_those_of_the_cache(name):
    """If this fails, configs of decoders name their heads otherwise: see `hf.column_bytes`."""
    model, _ = families.build(name)
    found = model.generate(**families.inputs(name, QUESTION), max_new_tokens=1, return_dict_in_generate=True)
    layers = found.past_key_values.layers
    assert hf.column_bytes(model) == sum(part[0, :, 0].nbytes for one in layers for part in (one.keys, one.values))


def test_a_static_window_has_no_room_for_more():
    layer = filled(StaticSlidingWindowLayer(max_cache_len=10, sliding_window=4))
    with pytest.raises(ValueError, match="has no room for it"):
        hf.resize_layer(layer, 1)


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_a_registered_function_gets_the_decoders_attention_calls(name):
    """If this fails, decoders no longer find their attention function by its registered name: see `hf.py`."""
    model, proc = tiny.model(attention=name), tiny.processor()
    inputs, layers = tiny.inputs(proc, tiny.image(), "What ?"), []
    config = model.get_decoder().config
    with torch.no_grad():
        expected = model(**inputs).logits

    def function(module, query, key, value, attention_mask, *args, **kwargs):
        layers.append(module.layer_idx)
        assert kwargs["scaling"] == query.shape[-1] ** -0.5
        return hf.attention_kernel(name, module)(module, query, key, value, attention_mask, *args, **kwargs)

    assert hf.attention_name(config) == name
    hf.register_attention(f"test_{name}_{id(model)}", name, function)
    hf.set_attention_name(config, f"test_{name}_{id(model)}")
    with torch.no_grad():
        found = model(**inputs).logits
    hf.set_attention_name(config, name)
    assert torch.equal(found, expected)
    assert layers == [0, 1, 2]


def test_options_that_choose_another_loop_are_known_by_name():
    config = GenerationConfig()
    hf.check_options(config, {})
    for name in hf.UNSERVED_OPTIONS:
        with pytest.raises(ValueError, match=f"the method cannot serve {name}: leave it out of generate"):
            hf.check_options(config, {name: 2})


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "instructblip"])
def test_generate_takes_what_the_vision_tower_made(name):
    """If this fails, `generate` takes image features by another name: see `hf.image_features_argument`."""
    model, _ = families.build(name)
    inputs = families.inputs(name, QUESTION)
    if not hf.takes_image_features(model):
        assert name == "instructblip" or not hasattr(model, "_supports_mm_encoder_outputs")
        return
    wanted = {key: inputs[key] for key in ("pixel_values", "image_grid_thw") if key in inputs}
    with torch.no_grad():
        features = model.base_model.get_image_features(**wanted, return_dict=True)
    expected = model.generate(**inputs, max_new_tokens=3)
    del inputs["pixel_values"]
    found = model.generate(**inputs, **hf.image_features_argument(features), max_new_tokens=3)
    assert torch.equal(found, expected)
