"""Rows of finished prompts leave the batch: the other rows get the same tokens, and less is computed."""

from functools import partial

import pytest
import torch
from transformers import StoppingCriteria

from iava.methods import METHODS
from tests import families, tiny
from tests.families import FAMILIES

QUESTIONS = ("Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?")
PICTURE = tiny.image(1)
STEPS = 6
LEAVES_AFTER = (2, 9, 4)
"""Steps after which each prompt needs no more tokens."""


class Steps(StoppingCriteria):
    """Counts steps, and stops nothing."""

    def __init__(self):
        self.count = 0

    def __call__(self, input_ids, scores, **_):
        self.count += 1
        return torch.zeros(len(input_ids), dtype=torch.bool)

    def unfinished(self):
        return [prompt for prompt, last in enumerate(LEAVES_AFTER) if self.count < last]


def generated(family, method, **options):
    """(3, STEPS) tokens, and the number of rows in each run of the decoder for one new token."""
    model, processor = families.build(family)
    inputs = families.inputs(family, *((question, [PICTURE]) for question in QUESTIONS))
    rows = []

    def count(_module, _args, kwargs):
        shape = next(kwargs[name] for name in ("inputs_embeds", "input_ids") if kwargs.get(name) is not None).shape
        if shape[1] == 1:
            rows.append(shape[0])

    handle = model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    bound = partial(METHODS[method]().bind(model, processor), **options)
    steps = Steps()
    if "unfinished" in options:
        bound = partial(bound, unfinished=steps.unfinished)
    # No answer ends by itself. The model is shared with other tests, so its own config stays.
    wanted = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}
    tokens = model.generate(**inputs, custom_generate=bound, stopping_criteria=[steps], **wanted)
    handle.remove()
    return tokens[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else tokens, rows


SOME = ("llava", "qwen2_5_vl", "instructblip")
CASES = [(one, "iava") for one in FAMILIES] + [(one, method) for one in SOME for method in ("greedy", "sid", "only")]


@pytest.mark.parametrize(("family", "method"), CASES)
@pytest.mark.slow
def test_the_tokens_of_the_other_prompts_stay_the_same(family, method):
    expected, every = generated(family, method)
    found, rows = generated(family, method, unfinished=True)
    for prompt, last in enumerate(LEAVES_AFTER):
        assert found[prompt, :last].tolist() == expected[prompt, :last].tolist()
    branches = every[-1] // len(QUESTIONS)
    assert rows[-(STEPS - 1) :] == [branches * count for count in (3, 2, 2, 1, 1)]
