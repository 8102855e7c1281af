import math

import pytest
import torch

from iava import IAVA, contrast, load, select_irrelevant
from iava.methods.trace import Trace
from iava.pocket.scenes import load_scene
from tests import naive, tiny

MODELS = [
    {"seed": 0},
    {"seed": 1, "heads": 8, "kv_heads": 2, "width": 64},
    {"seed": 2, "layers": 5, "feature_layer": -1, "image_size": 40},
    {"seed": 3, "kv_heads": 1, "layers": 2, "image_size": 32, "feature_layer": -3},
]
QUESTIONS = ["Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?"]


def answer(model, inputs, method, steps=6, **options) -> list[list[int]]:
    """New tokens of each row, up to the end token."""
    new = model.generate(**inputs, custom_generate=method, max_new_tokens=steps, **options)
    rows = new[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize(
    ("top_i", "lam", "alpha", "beta"),
    [(3, 0.0, 1.0, 0.1), (0.4, -0.5, 2.5, 0.0), (1.0, 0.3, 1.0, 0.02), (1, -1, 0.5, 0.3)],
)
@pytest.mark.slow
def test_tokens_equal_the_naive_method(shape, top_i, lam, alpha, beta):
    model, proc = tiny.model(**shape), tiny.processor(shape.get("image_size", 24))
    picture = tiny.image(shape["seed"])
    settings = {"top_i": top_i, "lam": lam, "alpha": alpha, "beta": beta}
    expected = [naive.Branches(model, proc, picture, q, **settings).decode(6) for q in QUESTIONS]
    together = answer(model, tiny.inputs(proc, picture, *QUESTIONS), IAVA(proc, negative="zeros", **settings))
    alone = [
        answer(model, tiny.inputs(proc, picture, q), IAVA(proc, negative="zeros", **settings))[0] for q in QUESTIONS
    ]
    assert together == expected
    assert alone == expected


def test_the_method_changes_what_is_said():
    """Otherwise the other tests could pass without any contrast."""
    model, proc, picture = tiny.model(), tiny.processor(), tiny.image()
    inputs = tiny.inputs(proc, picture, *QUESTIONS)
    plain = model.generate(**inputs, max_new_tokens=6)[:, inputs["input_ids"].shape[1] :].tolist()
    by_default = answer(model, inputs, IAVA(proc))
    assert all(a != b for a, b in zip(plain, by_default, strict=True))
    assert by_default != answer(model, inputs, IAVA(proc, top_i=9, lam=-2.0))
    assert by_default != answer(model, inputs, IAVA(proc, general="Where is the dog ?"))
    assert by_default != answer(model, inputs, IAVA(proc, layers=[0]))


@pytest.mark.parametrize("layers", [[0], [-1, 0], (1,)])
def test_selection_over_chosen_layers(layers):
    model, proc, picture = tiny.model(0), tiny.processor(), tiny.image(6)
    trace = Trace()

    def method(*args, **kwargs):
        return IAVA(proc, layers=layers, top_i=4, lam=-0.5)(*args, trace=trace, **kwargs)

    model.generate(**tiny.inputs(proc, picture, *QUESTIONS), custom_generate=method, max_new_tokens=1)
    expected = [naive.selection(model, proc, picture, q, 4, -0.5, list(layers)) for q in QUESTIONS]
    assert trace.reading["selected"].tolist() == expected
    assert any(map(any, expected))


def test_sampling_equals_a_naive_sampling_loop():
    model, proc, picture = tiny.model(8), tiny.processor(), tiny.image(1)
    answers = set()
    for seed in range(4):
        torch.manual_seed(seed)
        expected = naive.Branches(model, proc, picture, QUESTIONS[0], beta=0.01).decode(6, sample=True)
        torch.manual_seed(seed)
        inputs = tiny.inputs(proc, picture, QUESTIONS[0])
        assert answer(model, inputs, IAVA(proc, beta=0.01, negative="zeros"), do_sample=True, top_k=0) == [expected]
        answers.add(tuple(expected))
    assert len(answers) > 1


@pytest.mark.parametrize("shape", MODELS)
def test_no_contrast_is_exactly_generate(shape):
    model, proc = tiny.model(**shape), tiny.processor(shape.get("image_size", 24))
    inputs = tiny.inputs(proc, tiny.image(9), *QUESTIONS)
    plain = model.generate(**inputs, max_new_tokens=12)
    assert torch.equal(plain, model.generate(**inputs, custom_generate=IAVA(proc, alpha=0, beta=0), max_new_tokens=12))


def test_different_numbers_of_image_tokens_in_a_batch():
    model, proc = tiny.model(5), tiny.processor()
    one, two = tiny.image(1), tiny.image(2)
    texts = [tiny.prompt(QUESTIONS[1]), tiny.prompt(QUESTIONS[0], images=2)]
    method = IAVA(proc, top_i=0.3, lam=-0.5)
    both = proc(text=texts, images=[one, one, two], padding=True, return_tensors="pt")
    first = proc(text=texts[:1], images=[one], return_tensors="pt")
    second = proc(text=texts[1:], images=[one, two], return_tensors="pt")
    assert answer(model, both, method) == answer(model, first, method) + answer(model, second, method)


def test_nothing_selected_contrasts_with_no_image():
    model, proc, picture = tiny.model(), tiny.processor(), tiny.image()
    branches = naive.Branches(model, proc, picture, QUESTIONS[0])
    inputs = naive.prompt_inputs(proc, picture, QUESTIONS[0])
    branches.negative = naive.embeddings(model, inputs, [False] * 9)
    assert answer(model, inputs, IAVA(proc, lam=50.0, negative="zeros")) == [branches.decode(6)]


def test_the_general_instruction_as_the_question_selects_nothing():
    """Both passes then see the same, up to rounding, which must not count as a fall of attention."""
    general = torch.tensor([[0.3, 0.2, 0.1, 0.1]])
    noise = torch.tensor([[-1e-8, 1e-8, -2e-8, 1e-8]])
    assert not select_irrelevant(general, general + noise, top_i=4, lam=-10.0).any()
    assert select_irrelevant(general, general * 0.99, top_i=4, lam=-10.0).all()


def test_half_precision_is_contrasted_in_float32():
    model, proc, picture = tiny.model().to(torch.bfloat16), tiny.processor(), tiny.image()
    inputs = tiny.inputs(proc, picture, QUESTIONS[0])
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    seen = []

    class Spy(IAVA):
        def combine(self, logits, negative, step):
            seen.append((logits.dtype, negative[0].dtype))
            return super().combine(logits, negative, step)

    assert len(answer(model, inputs, Spy(proc), steps=3)[0]) > 0
    assert set(seen) == {(torch.float32, torch.float32)}


class TestSelect:
    def test_worked_by_hand(self):
        # mean 0.2, sample std sqrt((0.04 + 0.01 + 0 + 0.01 + 0.04) / 4) = 0.158
        general = torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4]])
        query = torch.tensor([[0.0, 0.05, 0.0, 0.2, 0.5]])
        # falls:                 0    0.05   0.2  0.1  -0.1

        def chosen(**settings):
            return select_irrelevant(general, query, **settings)[0].nonzero().flatten().tolist()

        assert chosen(top_i=5, lam=0.0) == [3]
        assert chosen(top_i=1, lam=0.0) == []
        assert chosen(top_i=2, lam=0.0) == [3]
        assert chosen(top_i=5, lam=-0.1) == [2, 3]
        assert chosen(top_i=1, lam=-0.1) == [2]
        assert chosen(top_i=5, lam=-1.0) == [1, 2, 3]
        assert chosen(top_i=5, lam=0.6) == [3]
        assert chosen(top_i=5, lam=0.64) == []
        assert chosen(top_i=0.4, lam=-1.0) == [2, 3]
        assert chosen(top_i=1.0, lam=-1.0) == [1, 2, 3]
        assert chosen(top_i=0.01, lam=-1.0) == [2]
        assert chosen(top_i=50, lam=-5.0) == [1, 2, 3]
        # More than an int64 holds.
        assert chosen(top_i=10**20, lam=-5.0) == [1, 2, 3]

    def test_thresholds_are_each_rows_own(self):
        torch.manual_seed(0)
        general = torch.rand(6, 11) * torch.tensor([[1.0], [100], [0.01], [5], [1], [30]])
        query = general * (torch.rand(6, 11) + 0.4)
        for top_i, lam in ((3, 0.0), (0.5, -0.4), (11, 0.7)):
            together = select_irrelevant(general, query, top_i=top_i, lam=lam)
            rows = zip(general.tolist(), query.tolist(), strict=True)
            assert together.tolist() == [naive.irrelevant(g, q, top_i, lam) for g, q in rows]
            assert together.any()

    def test_short_rows_count_their_own_tokens(self):
        torch.manual_seed(1)
        general, query = torch.rand(2, 8), torch.rand(2, 8) * 0.9
        valid = torch.arange(8) < torch.tensor([[5], [8]])
        general[0, 5:], query[0, 5:] = 9.0, 4.0
        alone = select_irrelevant(general[:1, :5], query[:1, :5], top_i=0.6, lam=-0.8)
        together = select_irrelevant(general, query, top_i=0.6, lam=-0.8, valid=valid)
        assert alone.any()
        assert together[0, :5].tolist() == alone[0].tolist()
        assert not together[0, 5:].any()

    def test_ties_go_to_the_earlier_token_and_never_over_the_count(self):
        general, query = torch.tensor([[0.5, 0.5, 0.5, 0.0, 0.0]]), torch.zeros(1, 5)
        assert select_irrelevant(general, query, top_i=2, lam=0.0).tolist() == [[True, True, False, False, False]]

    def test_one_token_is_never_above_its_own_mean(self):
        assert not select_irrelevant(torch.ones(1, 1), torch.zeros(1, 1), top_i=1, lam=-3.0).any()

    @pytest.mark.parametrize(("general", "query"), [((2, 3), (2, 4)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))])
    def test_shapes(self, general, query):
        with pytest.raises(ValueError, match=r"both must be \(B, N\)"):
            select_irrelevant(torch.zeros(general), torch.zeros(query), top_i=1, lam=0.0)


class TestContrast:
    def test_worked_by_hand(self):
        full = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[None]
        negative = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()[None]
        # p+^2 / p-: 0.25 / 0.7, 0.09 / 0.1, 0.0225 / 0.1; the last is below 0.2 * 0.5
        result = contrast(full, negative, alpha=1.0, beta=0.2).softmax(-1)[0]
        weights = torch.tensor([0.25 / 0.7, 0.9, 0.225, 0.0])
        torch.testing.assert_close(result, weights / weights.sum())

    def test_implausible_tokens_are_ruled_out_by_the_full_image(self):
        full = torch.tensor([[5.0, 4.9, -3.0], [0.0, 1.0, 0.5]])
        negative = torch.tensor([[9.0, 0.0, -90.0], [5.0, 5.0, -5.0]])
        result = contrast(full, negative, alpha=1, beta=0.5)
        assert result.isneginf().tolist() == [[False, False, True], [True, False, False]]
        assert contrast(full, negative, alpha=1, beta=1.0).isfinite().sum(-1).tolist() == [1, 1]
        assert contrast(full, negative, alpha=1, beta=0).isfinite().all()

    def test_nothing_asked_nothing_changed(self):
        full = torch.tensor([[1.1, -math.inf, 3e4]])
        assert torch.equal(contrast(full, torch.full((1, 3), -math.inf), alpha=0, beta=0), full)

    def test_half_precision_in_float32_out(self):
        result = contrast(torch.ones(1, 2).half() * 6e4, torch.ones(1, 2).half() * -6e4, alpha=3.0, beta=0.0)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, torch.full((1, 2), 4 * 59999.0 + 3 * 59999.0), rtol=1e-3, atol=0)

    @pytest.mark.parametrize(("alpha", "beta"), [(-1, 0), (1, 1.5), (math.nan, 0)])
    def test_refusals(self, alpha, beta):
        with pytest.raises(ValueError, match=r"(alpha|beta) is .*: it must be a number"):
            contrast(torch.zeros(1, 2), torch.zeros(1, 2), alpha=alpha, beta=beta)


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("top_i", 0, "at least 1"),
        ("top_i", -3, "at least 1"),
        ("top_i", 0.0, "above 0 and at most 1"),
        ("top_i", 1.5, "above 0 and at most 1"),
        ("top_i", math.nan, "above 0 and at most 1"),
        ("top_i", True, "at least 1"),
        ("top_i", "3", "a count such as 40"),
        ("lam", math.inf, "finite"),
        ("lam", "0", "finite"),
        ("alpha", -1, "at least 0"),
        ("alpha", math.inf, "at least 0"),
        ("alpha", math.nan, "at least 0"),
        ("beta", 1.5, "at least 0 and at most 1"),
        ("beta", -0.1, "at least 0 and at most 1"),
        ("beta", math.nan, "at least 0 and at most 1"),
        ("negative", "ones", "one of zeros"),
        ("general", "  ", "an instruction"),
        ("general", None, "an instruction"),
        ("layers", [], "layer indices"),
        ("layers", "last", "layer indices"),
        ("layers", [0.5], "layer indices"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        IAVA(**{setting: value})
    assert str(caught.value).startswith(f"{setting} is {value!r}: it must be")
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_not_there():
    model, proc = tiny.model(), tiny.processor()
    with pytest.raises(ValueError, match="layers names layer 7, but the model has 3"):
        answer(model, tiny.inputs(proc, tiny.image(), "What ?"), IAVA(proc, layers=[7]))


def test_a_prompt_without_an_image_or_a_method_without_a_processor():
    model, proc = tiny.model(), tiny.processor()
    with pytest.raises(ValueError, match="none of the prompts has image tokens"):
        answer(model, proc.tokenizer([tiny.prompt("What ?", images=0)], return_tensors="pt"), IAVA(proc))
    with pytest.raises(ValueError, match=r"use IAVA\(processor\)"):
        answer(model, tiny.inputs(proc, tiny.image(), "What ?"), IAVA())


def test_published_lam_goes_by_the_model_type():
    model, proc = tiny.model(), tiny.processor()
    assert IAVA().settings()["lam"] is None
    assert IAVA().bind(model, proc).lam == 0.0
    assert IAVA(lam=0.4).bind(model, proc).lam == 0.4
    model.config.model_type = "instructblip"
    assert IAVA().bind(model, proc).lam == -0.1
    model.config.model_type = "something_else"
    assert IAVA().bind(model, proc).lam == 0.0


def test_nothing_is_irrelevant_to_the_general_instruction_itself():
    lvlm, picture = load("pocket"), load_scene("tune", 3).render()
    question = "Describe this image."
    same = lvlm.ask(picture, question, method="iava", max_new_tokens=8)
    text_only = lvlm.ask(picture, question, method="no-image", max_new_tokens=8)
    assert same.selected == 0
    torch.testing.assert_close(same.logits, text_only.logits, atol=1e-4, rtol=1e-4)
    other = lvlm.ask(picture, question, method="iava", general="Is there an object in the image?", max_new_tokens=8)
    assert other.selected > 0
