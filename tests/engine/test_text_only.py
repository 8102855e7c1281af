"""A prompt without an image, in a batch with others that have one, is decoded plainly."""

import pytest
import torch

import iava
from iava.methods import METHODS as ALL
from iava.methods.base import Method
from tests import families, tiny

PICTURE = tiny.image(2)
METHODS = [
    name
    for name, kind in ALL.items()
    if name != "oracle" and (kind().has_branches() or kind.attention_hook is not Method.attention_hook)
]
"""Methods with a contrast branch or a hook. The oracle needs the regions of the question."""
TALKS = (
    [{"type": "image", "image": PICTURE}, {"type": "text", "text": "Is there a dog ?"}],
    [{"type": "text", "text": "What is a dog , and where is the red boat ?"}],
    [{"type": "text", "text": "What ?"}, {"type": "image", "image": PICTURE}],
)


def batch(name, *talks):
    model, processor = families.build(name)
    made = processor.apply_chat_template(
        [[{"role": "user", "content": talk}] for talk in talks],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
    )
    return model, processor, {key: value for key, value in made.items() if key != "labels"}


def run(model, inputs, method, **options):
    wanted = {"max_new_tokens": 4, "eos_token_id": None, "return_dict_in_generate": True, "output_logits": True}
    found = model.generate(**inputs, custom_generate=method, seed=1, **wanted | options)
    return found.sequences[:, inputs["input_ids"].shape[1] :].tolist(), torch.stack(found.logits, dim=1)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen2_vl", "gemma3", "idefics3")]


@pytest.mark.parametrize("name", ["llava", *SLOW])
@pytest.mark.parametrize("method", METHODS)
def test_the_row_is_plain_and_the_others_are_as_alone(name, method):
    model, processor, inputs = batch(name, *TALKS)
    made = iava.load(model, processor).method(method)
    tokens, logits = run(model, inputs, made)
    plain, plain_logits = run(model, inputs, iava.Greedy())
    assert tokens[1] == plain[1]
    torch.testing.assert_close(logits[1], plain_logits[1], atol=1e-4, rtol=1e-4)
    for row in (0, 2):
        alone, first = run(*batch(name, TALKS[row])[::2], made)
        assert tokens[row] == alone[0]
        torch.testing.assert_close(logits[row, 0], first[0, 0], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
@pytest.mark.parametrize("method", ["iava", "vcd", "pai", "only"])
def test_beams(method, options):
    model, processor, inputs = batch("llava", *TALKS)
    tokens, _ = run(model, inputs, iava.load(model, processor).method(method), **options)
    plain, _ = run(model, inputs, iava.Greedy(), **options)
    several = len(tokens) // 3
    assert tokens[several : 2 * several] == plain[several : 2 * several]
    assert tokens != plain
