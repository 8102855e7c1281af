"""What the variants of IAVA+ keep and what comes out, against naive branches."""

import pytest
import torch

from iava.methods.oracle import Oracle
from iava.methods.trace import Trace
from iava.studies.centred import LEAST, VARIANTS, variants
from tests import naive, tiny

PICTURE = tiny.image(6, (24, 24))  # 3 x 3 tokens of 8 pixels
QUESTION = "Is there a dog ?"
SETTINGS = {"alpha": 0.5, "top_i": 5, "lam": -1.0, "negative": "zeros", "beta": 0.0}


def first_logits(setup, method):
    model, proc = setup
    trace = Trace()
    inputs = tiny.inputs(proc, PICTURE, QUESTION)
    model.generate(**inputs, custom_generate=lambda *a, **k: method(*a, trace=trace, **k), max_new_tokens=1)
    selected = trace.reading.get("selected")
    return trace.logits[0], None if selected is None else selected[0].tolist()


def says(setup, keep):
    embedded = naive.embeddings(setup[0], naive.prompt_inputs(setup[1], PICTURE, QUESTION), keep)
    return naive.logits_after(setup[0], embedded, [])


@pytest.fixture(scope="module")
def setup():
    return tiny.model(0), tiny.processor()


@pytest.mark.parametrize("name", [name for name, kind in VARIANTS.items() if not issubclass(kind, Oracle)])
def test_each_subtracts_what_its_name_says(setup, name):
    method = next(one for one in variants(SETTINGS, oracle=False) if one.name == name).bind(*setup)
    found, kept = first_logits(setup, method)
    attention = naive.attention(*setup, PICTURE, QUESTION).mean(dim=(0, 1)).tolist()
    published = naive.selection(*setup, PICTURE, QUESTION, 5, -1.0)
    if name.startswith("irrelevant"):
        assert kept == published
    elif name.startswith("least"):
        assert kept == [rank < round(LEAST * 9) for rank in (sorted(attention).index(one) for one in attention)]
    elif name.startswith("the whole"):
        assert all(kept)
    else:
        assert sum(kept) == sum(published)
    full, irrelevant, text = says(setup, None), says(setup, kept), says(setup, [False] * 9)
    expected = full + 0.5 * (text - irrelevant) if "centred" in name else 1.5 * full - 0.5 * irrelevant
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_oracle_is_asked_only_where_the_region_is_known():
    assert {one.name for one in variants(SETTINGS, oracle=True)} == set(VARIANTS)
    assert not any(isinstance(one, Oracle) for one in variants(SETTINGS, oracle=False))
