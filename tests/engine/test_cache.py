import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

import iava
from iava.engine import hf
from iava.engine.caches.cache import GrowingLayer, SegmentedLayer, before, segments_of, with_spare
from tests import tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?", "What ?"]


def part(end, *numbers):
    """A part with one head of one dimension; its values are its keys, negative."""
    keys = torch.tensor(numbers, dtype=torch.float32)[None, :, None]
    return end, keys, -keys


def columns(rows):
    return torch.tensor(rows, dtype=torch.float32)[:, None, :, None]


def flat(parts):
    return [(end, keys.flatten().tolist(), (-values).flatten().tolist()) for end, keys, values in parts]


@pytest.fixture
def layer():
    # The first row has a gap and ends early, the second reaches one column beyond the start.
    return SegmentedLayer([[part(2, 1), part(4, 2)], [part(6, 3, 4, 5)]], start=5)


def test_new_columns_stand_behind_the_parts(layer):
    keys, values = layer.update(columns([[6, 7], [8, 9]]), -columns([[6, 7], [8, 9]]))
    assert keys[:, 0, :, 0].tolist() == [[0, 1, 0, 2, 0, 6, 7], [0, 0, 0, 3, 4, 5, 9]]
    assert torch.equal(values, -keys)
    assert layer.get_seq_length() == 7
    longer, _ = layer.update(columns([[10], [11]]), columns([[10], [11]]))
    assert longer[:, 0, :, 0].tolist() == [[0, 1, 0, 2, 0, 6, 7, 10], [0, 0, 0, 3, 4, 5, 9, 11]]
    layer.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(layer.whole()[0], longer[[1, 1]])


def test_a_layer_grows_in_place_until_its_spare_columns_are_used():
    torch.manual_seed(0)
    plain, start = DynamicLayer(), 50
    parts = [(torch.randn(3, 2, width, 4), torch.randn(3, 2, width, 4)) for width in (start, *[1] * 90)]
    whole = [with_spare(part, start) for part in parts[0]]
    for wide, part in zip(whole, parts[0], strict=True):
        wide[:, :, :start] = part
    growing, places = GrowingLayer(*whole, start), []
    plain.update(*parts[0])
    for number, part in enumerate(parts[1:]):
        for ours, theirs in zip(growing.update(*part), plain.update(*part), strict=True):
            assert torch.equal(ours, theirs)
        places.append(growing.keys.data_ptr())
        if number == 30:
            growing.reorder_cache(torch.tensor([2, 0, 0]))
            plain.reorder_cache(torch.tensor([2, 0, 0]))
    assert growing.get_seq_length() == plain.get_seq_length() == start + 90
    # One place for 14 columns, one more for up to 128, another from the change of order on, and one beyond 128.
    assert [places[:14], places[14:31], places[31:78], places[78:]] == [
        [places[first]] * count for first, count in ((0, 14), (14, 17), (31, 47), (78, 12))
    ]


@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
def test_long_answers_of_both_kinds_of_caches(negative):
    model, proc = tiny.model(1), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(2), QUESTIONS[0])
    options = {"max_new_tokens": 90, "eos_token_id": None, "custom_generate": iava.IAVA(proc, negative=negative)}
    dynamic, static = (model.generate(**inputs, cache_implementation=kind, **options) for kind in ("dynamic", "static"))
    assert torch.equal(dynamic, static)


def test_where_each_row_is(layer):
    layer.update(columns([[6, 7], [8, 9]]), -columns([[6, 7], [8, 9]]))
    first, second = segments_of(layer, 7)
    assert flat(first) == [(2, [1], [1]), (4, [2], [2]), (7, [6, 7], [6, 7])]
    assert flat(second) == [(6, [3, 4, 5], [3, 4, 5]), (7, [9], [9])]
    assert torch.equal(SegmentedLayer([first, second], 7).whole()[0], layer.whole()[0])
    assert flat(before(second, 5)) == [(5, [3, 4], [3, 4]), (5, [], [])]
    plain = DynamicCache()
    plain.update(*layer.whole(), 0)
    assert torch.equal(SegmentedLayer(segments_of(plain.layers[0], 7), 7).whole()[1], layer.whole()[1])


@pytest.mark.parametrize(("negative", "second"), [("hide", 3 * 11), ("zeros", 3 * 11 + (11 + 7 + 4))])
def test_an_image_is_held_once_while_answers_grow(negative, second):
    """Eleven columns up to the image's end, and eleven, padded to the longest, that follow it in each of three rows.

    A contrast branch with an image of its own holds that, too: the questions have 9, 5 and 2 tokens, so 4 and 7 columns
    before the eleven are empty.
    """
    held = []

    def look(_module, _args, kwargs):
        if kwargs["inputs_embeds"].shape[1] > 1 or held:
            return
        for layer in kwargs[hf.CACHE].layers:
            keys = [layer.keys, *(part for row in layer.rows for _, part, _ in row)]
            bytes_of = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in keys}
            held.append(sum(bytes_of.values()) // layer.keys[0, :, 0].nbytes)

    model = tiny.model(1)
    model.generation_config.eos_token_id = None
    model.get_decoder().register_forward_pre_hook(look, with_kwargs=True)
    iava.load(model, tiny.processor()).ask_many(tiny.image(2), QUESTIONS, negative=negative, max_new_tokens=3)
    assert held == [11 + 3 * 11 + second] * 3


@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_whoever_asks_for_the_cache_gets_a_plain_one(negative, tokens):
    model, proc = tiny.model(1), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(2), *QUESTIONS)
    options = {"max_new_tokens": tokens, "return_dict_in_generate": True, "eos_token_id": None}
    plain = model.generate(**inputs, **options)
    made = iava.IAVA(proc, negative=negative, alpha=0, beta=0)
    found = model.generate(**inputs, custom_generate=made, **options)
    seen = torch.nn.functional.pad(inputs["attention_mask"], (0, tokens - 1), value=1)[:, None, :, None]
    for ours, theirs in zip(found.past_key_values.layers, plain.past_key_values.layers, strict=True):
        assert type(ours) is type(theirs)
        assert ours.get_seq_length() == theirs.get_seq_length()
        torch.testing.assert_close(ours.keys * seen, theirs.keys * seen, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.values * seen, theirs.values * seen, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("column", [2, 9, -3])
def test_masked_columns_stay_where_they_are(column):
    """Before the image, in it, and after it."""
    model, proc = tiny.model(1), tiny.processor()
    texts = [f"SYSTEM : See the picture . {tiny.prompt(q)}" for q in (*QUESTIONS[:1] * 2, "Is there a cat ?")]
    inputs = dict(proc(text=texts, images=[tiny.image(2)] * 3, padding=True, return_tensors="pt"))
    inputs["attention_mask"][:, column] = 0
    options = {"max_new_tokens": 5, "return_dict_in_generate": True, "output_logits": True, "eos_token_id": None}
    plain = model.generate(**inputs, **options)
    for negative in ("drop", "hide"):
        made = iava.IAVA(proc, negative=negative, alpha=0, beta=0)
        found = model.generate(**inputs, custom_generate=made, **options)
        assert torch.equal(plain.sequences, found.sequences)
        torch.testing.assert_close(torch.stack(found.logits), torch.stack(plain.logits), atol=1e-4, rtol=1e-4)
