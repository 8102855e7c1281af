import math

import pytest
import torch

import iava
from iava import M3ID
from tests import families, tiny, twobranch

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [
    ("Is there a dog ?", PICTURES[:1]),
    ("how many red birds , one or two or three , are there on the street ?", PICTURES[1:2]),
    ("What ?", PICTURES[2:]),
]
STEPS = 4


def rule(decay: float, threshold: float, offset: int):
    """The paper's formula, one token of the vocabulary at a time."""

    def combine(full: torch.Tensor, text: torch.Tensor, number: int) -> torch.Tensor:
        p, q = full.double().softmax(-1).tolist(), text.double().softmax(-1).tolist()
        g = math.exp(-decay * (number + offset))
        extra = (1 - g) / g if max(p) < threshold else 0.0
        return torch.tensor([math.log(a) + extra * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)])

    return combine


class TestTheFormula:
    def test_it_equals_the_papers(self):
        torch.manual_seed(0)
        # The last row is sure of one token.
        full, text = torch.randn(4, 9), torch.randn(4, 9)
        full[3, 2] = 9.0
        method = M3ID(decay=0.1, threshold=0.6, offset=2)
        for step in (0, 1, 40):
            found = method.combine(full, [text], step)
            expected = [rule(0.1, 0.6, 2)(f, t, step + 1) for f, t in zip(full, text, strict=True)]
            torch.testing.assert_close(found, torch.stack(expected), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found[3], full[3].log_softmax(-1))

    def test_with_an_offset_of_minus_one_the_first_token_is_plain(self):
        full, text = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
        method = M3ID(decay=math.log(2), threshold=1.0, offset=-1)
        assert torch.equal(method.combine(full, [text], 0), full.log_softmax(-1))
        # The second token is at t = 1: log(p * p / q).
        torch.testing.assert_close(method.combine(full, [text], 1).exp(), torch.tensor([[0.25 / 0.8, 0.25 / 0.2]]))

    def test_by_hand(self):
        full, text = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
        # g = 1/2 at t = 1: log p + (log p - log q) = log(p * p / q).
        found = M3ID(decay=math.log(2), threshold=1.0).combine(full, [text], 0)
        torch.testing.assert_close(found.exp(), torch.tensor([[0.25 / 0.8, 0.25 / 0.2]]))
        # At p = threshold it is left alone.
        assert torch.equal(M3ID(decay=0.5, threshold=0.5).combine(full, [text], 0), full.log_softmax(-1))

    def test_long_answers_stay_finite(self):
        full, text = torch.randn(2, 5), torch.randn(2, 5)
        assert M3ID(decay=1.0, threshold=1.0).combine(full, [text], 10_000).isfinite().all()


def without_image(name: str, question: str, pictures: list) -> twobranch.Next:
    """The next token's logits after the prompt's text alone."""
    model = twobranch.eager(name)
    inputs = families.inputs(name, (question, pictures))
    text = inputs["input_ids"][0] != model.config.image_token_id
    short = {
        key: inputs[key][:, text]
        for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
        if key in inputs
    }
    # These two take no text without an image.
    alone = model.config.model_type in ("instructblip", "blip-2")
    return twobranch.reader(model.language_model if alone else model, short)


@pytest.mark.parametrize("offset", [20, -1])
@pytest.mark.parametrize("name", ["llava", "instructblip", "blip-2", "qwen2_vl", "qwen3_vl", "paligemma", "gemma3"])
def test_a_batch_equals_the_naive_branches(name, offset):
    model, _ = families.build(name)
    # An offset of -1 needs a fast decay to change one of the few tokens behind the first.
    settings = {"decay": 0.04 if offset > 0 else 0.8, "threshold": 0.9 if offset > 0 else 1.0, "offset": offset}
    inputs = families.inputs(name, *ASKED)
    found = model.generate(**inputs, custom_generate=M3ID(**settings, model=model), max_new_tokens=STEPS)
    eager = twobranch.eager(name)
    expected = [
        twobranch.decode(
            twobranch.reader(eager, families.inputs(name, asked)), without_image(name, *asked), rule(**settings), STEPS
        )
        for asked in ASKED
    ]
    assert twobranch.answers(inputs, found) == expected
    assert not torch.equal(model.generate(**inputs, max_new_tokens=STEPS), found)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_questions_about_one_image_and_a_reading(name):
    lvlm = iava.load(*families.build(name))
    questions = [question for question, _ in ASKED]
    settings = {"threshold": 1.0, "offset": 30}
    together = lvlm.ask_many(PICTURES[0], questions, method="m3id", max_new_tokens=STEPS, **settings)
    reading = lvlm.read(PICTURES[0])
    for question, found in zip(questions, together, strict=True):
        inputs = families.inputs(name, (question, PICTURES[:1]))
        alone = lvlm.model.generate(**inputs, custom_generate=M3ID(**settings), max_new_tokens=STEPS)
        tokens = [token for token in twobranch.answers(inputs, alone)[0] if token != 2]
        assert found.tokens == tokens
        assert reading.ask(question, method="m3id", max_new_tokens=STEPS, **settings).tokens == tokens


@pytest.mark.parametrize("setting", [{"decay": 0.0}, {"threshold": 0.0}])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_without_contrast_it_is_plain_generate(setting, options):
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED)
    found = []
    for method in (None, M3ID(**setting)):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, custom_generate=method, max_new_tokens=5, **options))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("decay", -0.1, "at least 0 and at most 1"),
        ("decay", math.nan, "at least 0 and at most 1"),
        ("threshold", 1.1, "at least 0 and at most 1"),
        ("offset", -2, "a whole number, at least -1"),
        ("offset", 2.5, "a whole number, at least -1"),
        ("beta", 2, "at least 0 and at most 1"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        M3ID(**{setting: value})
    assert str(caught.value).startswith(f"{setting} is {value!r}: it must be")
