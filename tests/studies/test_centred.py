"""The selection and the logits of each variant of IAVA+, against naive branches."""

import pytest
import torch

from iava.methods.oracle import Oracle
from iava.methods.trace import Trace
from iava.studies.centred import LEAST_ATTENDED_SHARE, VARIANTS, contrast_variants
from tests import naive, tiny

IMAGE = tiny.image(6, (24, 24))  # 3 x 3 patches of 8 pixels
QUESTION = "Is there a dog ?"
SETTINGS = {"alpha": 0.5, "top_i": 5, "lam": -1.0, "negative": "zeros", "beta": 0.0}


def first_logits(setup, method):
    model, proc = setup
    trace = Trace()
    inputs = tiny.inputs(proc, IMAGE, QUESTION)
    model.generate(**inputs, custom_generate=lambda *a, **k: method(*a, trace=trace, **k), max_new_tokens=1)
    selected = trace.reading.get("selected")
    return trace.logits[0], None if selected is None else selected[0].tolist()


def logits_of(setup, keep):
    embedded = naive.embeddings(setup[0], naive.prompt_inputs(setup[1], IMAGE, QUESTION), keep)
    return naive.logits_after(setup[0], embedded, [])


@pytest.fixture(scope="module")
def setup():
    return tiny.model(0), tiny.processor()


@pytest.mark.parametrize("name", [name for name, kind in VARIANTS.items() if not issubclass(kind, Oracle)])
def test_each_variant_subtracts_its_negative_image(setup, name):
    method = next(one for one in contrast_variants(SETTINGS, oracle=False) if one.name == name).bind(*setup)
    found, kept = first_logits(setup, method)
    attention = naive.attention(*setup, IMAGE, QUESTION).mean(dim=(0, 1)).tolist()
    published = naive.selection(*setup, IMAGE, QUESTION, 5, -1.0)
    if name.startswith("irrelevant"):
        assert kept == published
    elif name.startswith("least"):
        ranks = [sorted(attention).index(one) for one in attention]
        assert kept == [rank < round(LEAST_ATTENDED_SHARE * 9) for rank in ranks]
    elif name.startswith("the whole"):
        assert all(kept)
    else:
        assert sum(kept) == sum(published)
    full, negative, text = logits_of(setup, None), logits_of(setup, kept), logits_of(setup, [False] * 9)
    expected = full + 0.5 * (text - negative) if "centred" in name else 1.5 * full - 0.5 * negative
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_oracle_is_included_only_if_the_region_is_known():
    assert {one.name for one in contrast_variants(SETTINGS, oracle=True)} == set(VARIANTS)
    assert not any(isinstance(one, Oracle) for one in contrast_variants(SETTINGS, oracle=False))
