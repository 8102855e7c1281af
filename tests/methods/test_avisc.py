import math
import statistics

import pytest
import torch

import iava
from iava import AvisC
from iava.methods.avisc import most_attentive
from iava.methods.trace import Trace
from tests import families, naive, tiny, twobranch

PICTURES = [tiny.image(1, (40, 32)), tiny.image(2, (60, 25)), tiny.image(3, (31, 64))]
ASKED = [
    ("Is there a dog ?", PICTURES[:1]),
    ("how many red birds , one or two or three , are there on the street ?", PICTURES[1:2]),
    ("What ?", PICTURES[2:]),
]
STEPS = 4


def blind_tokens(attention: torch.Tensor, gamma: float, lam: float) -> list[bool]:
    """(L, heads, N) attention of one prompt: the paper's three steps, number by number."""
    totals = [float(layer.double().sum()) for layer in attention]
    chosen, reached = [], 0.0
    for layer in sorted(range(len(totals)), key=lambda number: -totals[number]):
        if reached < gamma:
            chosen.append(layer)
        reached += totals[layer] / sum(totals)
    mean = attention[chosen].double().mean(dim=(0, 1)).tolist()
    threshold = statistics.mean(mean) + lam * statistics.stdev(mean)
    return [value > threshold for value in mean]


class TestLayers:
    def attention(self, *totals: float) -> torch.Tensor:
        return torch.tensor(totals)[None, :, None, None].expand(1, -1, 2, 3) / 6

    @pytest.mark.parametrize(
        ("gamma", "chosen"),
        [
            (0.3, [False, True, False, False]),
            (0.4, [False, True, False, False]),
            (0.5, [False, True, False, True]),
            (0.95, [True, True, True, True]),
            (1.0, [True, True, True, True]),
        ],
    )
    def test_the_fewest_that_reach_gamma(self, gamma, chosen):
        assert most_attentive(self.attention(0.2, 0.45, 0.1, 0.25), gamma)[0].tolist() == chosen

    def test_each_row_has_its_own(self):
        attention = torch.cat([self.attention(0.6, 0.3, 0.1), self.attention(0.01, 0.01, 0.5)])
        assert most_attentive(attention, 0.5).tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.9, "lam": 0.2, "alpha": 1.0}, {"gamma": 0.01, "lam": 0.5}])
def test_a_batch_equals_the_naive_branches(settings):
    model, processor = tiny.model(4), tiny.processor()
    questions = [question for question, _ in ASKED]
    inputs = tiny.inputs(processor, PICTURES[0], *questions)
    found = model.generate(**inputs, custom_generate=AvisC(**settings), max_new_tokens=STEPS)
    expected = []
    for question in questions:
        attention = naive.attention(model, processor, PICTURES[0], question)
        blind = blind_tokens(attention, settings.get("gamma", 0.5), settings.get("lam", 1.0))
        alone = naive.prompt_inputs(processor, PICTURES[0], question)
        branches = [naive.embeddings(model, alone, keep) for keep in (None, blind)]
        tokens: list[int] = []
        while len(tokens) < STEPS and 2 not in tokens:
            full, negative = (naive.logits_after(model, embedded, tokens) for embedded in branches)
            tokens.append(int(naive.contrasted(full, negative, settings.get("alpha", 2.5), 0.1).argmax()))
        expected.append(tokens)
    assert twobranch.answers(inputs, found) == expected
    assert not torch.equal(model.generate(**inputs, max_new_tokens=STEPS), found)


@pytest.mark.parametrize("name", ["llava", "instructblip", "qwen2_vl", "paligemma", "gemma3"])
def test_blind_tokens_of_families(name):
    model, _ = families.build(name)
    inputs, trace = families.inputs(name, *ASKED), Trace()
    method = AvisC(lam=0.3, model=model)

    def traced(*args, **loop):
        return method(*args, trace=trace, **loop)

    together = twobranch.answers(inputs, model.generate(**inputs, custom_generate=traced, max_new_tokens=STEPS))
    for row, asked in enumerate(ASKED):
        alone, eager = families.inputs(name, asked), twobranch.eager(name)
        with torch.no_grad():
            out = eager(**alone, output_attentions=True)
        matrices = out.attentions if "attentions" in out else out.language_model_outputs.attentions
        is_image = alone["input_ids"][0] == model.config.image_token_id
        expected = blind_tokens(torch.stack([m[0, :, -1, is_image] for m in matrices]), 0.5, 0.3)
        selected = trace.reading["selected"][row]
        assert selected[: len(expected)].tolist() == expected
        assert not selected[len(expected) :].any()
        single = model.generate(**alone, custom_generate=method, max_new_tokens=STEPS)
        assert twobranch.answers(alone, single) == [together[row]]


def test_questions_about_one_image_and_a_reading():
    lvlm = iava.load(*families.build("llava"))
    questions = [question for question, _ in ASKED]
    together = lvlm.ask_many(PICTURES[0], questions, method="avisc", max_new_tokens=STEPS, explain=True)
    reading = lvlm.read(PICTURES[0])
    for question, found in zip(questions, together, strict=True):
        alone = reading.ask(question, method="avisc", max_new_tokens=STEPS, explain=True)
        assert alone.tokens == found.tokens
        assert alone.explanation.selected.tolist() == found.explanation.selected.tolist()
        assert found.settings["alpha"] == 2.5


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_without_contrast_it_is_plain_generate(options):
    model, _ = families.build("llava")
    inputs = families.inputs("llava", *ASKED)
    found = []
    for method in (None, AvisC(alpha=0, beta=0)):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, custom_generate=method, max_new_tokens=5, **options))
    assert torch.equal(*found)


def test_published_alpha_goes_by_the_model_type():
    for name, alpha in (("llava", 2.5), ("instructblip", 3.0), ("qwen2_vl", 1.0)):
        assert AvisC().bind(*families.build(name)).settings()["alpha"] == alpha
        assert AvisC(alpha=0.4).bind(*families.build(name)).settings()["alpha"] == 0.4
    assert AvisC().settings()["alpha"] is None


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("gamma", 0, "above 0 and at most 1"),
        ("gamma", 1.1, "above 0 and at most 1"),
        ("lam", math.inf, "finite"),
        ("alpha", -1, "at least 0"),
        ("beta", 2, "at least 0 and at most 1"),
    ],
)
def test_bad_settings_get_one_line(setting, value, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        AvisC(**{setting: value})
    assert str(caught.value).startswith(f"{setting} is {value!r}: it must be")
