"""The text-centred contrast against three branches without cache, one prompt at a time."""

import math

import pytest
import torch

from iava.methods.iava_plus import IAVAPlus
from iava.methods.trace import Trace
from tests import naive, tiny

QUESTIONS = ["Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?"]
PICTURE = tiny.image(6, (24, 24))  # 3 x 3 tokens of 8 pixels


class Three(naive.Branches):
    """Also what the text alone says."""

    def __init__(self, model, proc, picture, question, **settings):
        super().__init__(model, proc, picture, question, **settings)
        self.text = naive.embeddings(model, naive.prompt_inputs(proc, picture, question), [False] * 9)

    def logits(self, tokens):
        full, negative, text = (
            naive.logits_after(self.model, e, tokens) for e in (self.full, self.negative, self.text)
        )
        probabilities = full.softmax(dim=-1).tolist()
        return torch.tensor(
            [
                f + self.alpha * (t - n) if p >= self.beta * max(probabilities) else -math.inf
                for f, n, t, p in zip(full.tolist(), negative.tolist(), text.tolist(), probabilities, strict=True)
            ]
        )


@pytest.fixture
def setup():
    return tiny.model(0), tiny.processor()


def generated(setup, method, questions, **options):
    model, proc = setup
    inputs = tiny.inputs(proc, PICTURE, *questions)
    new = model.generate(**inputs, custom_generate=method, max_new_tokens=6, **options)
    rows = new[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


SETTINGS = {"top_i": 5, "lam": -1.0, "alpha": 3.0, "beta": 0.01}


def test_a_batch_says_what_three_branches_say_one_by_one(setup):
    expected = [Three(*setup, PICTURE, question, **SETTINGS).decode(6) for question in QUESTIONS]
    assert generated(setup, IAVAPlus(setup[1], negative="zeros", **SETTINGS), QUESTIONS) == expected
    plain = generated(setup, IAVAPlus(setup[1], negative="zeros", **{**SETTINGS, "alpha": 0.0}), QUESTIONS)
    assert plain != expected


@pytest.mark.parametrize("negative", ["drop", "hide", "zeros"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_equals_its_prompts_alone(setup, negative, beams):
    method = IAVAPlus(setup[1], negative=negative, **SETTINGS)
    together = generated(setup, method, QUESTIONS, num_beams=beams)
    assert together == [generated(setup, method, [question], num_beams=beams)[0] for question in QUESTIONS]


def test_where_nothing_is_selected_nothing_is_subtracted(setup):
    model, proc = setup
    method = IAVAPlus(proc, lam=100.0, alpha=3.0, beta=0.0)
    trace = Trace()
    inputs = tiny.inputs(proc, PICTURE, QUESTIONS[0])
    model.generate(**inputs, custom_generate=lambda *a, **k: method(*a, trace=trace, **k), max_new_tokens=1)
    assert not trace.reading["selected"].any()
    with torch.no_grad():
        assert torch.allclose(trace.logits, model(**inputs).logits[:, -1], atol=1e-5)


def test_its_defaults_are_its_own():
    assert (IAVAPlus().settings()["alpha"], IAVAPlus().settings()["top_i"]) == (0.125, 0.5)
    with pytest.raises(ValueError, match="alpha is -1"):
        IAVAPlus(alpha=-1)
