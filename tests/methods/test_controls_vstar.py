"""The contrast with other tokens than IAVA's, against the naive branches with those tokens."""

from functools import partial

import pytest
import torch

from iava import IAVA, PromptBias, load
from iava.lvlm.boxes import token_boxes
from iava.methods.controls_vstar import NoImage, Noise, RandomTokens, RelevantTokens, _like
from iava.methods.oracle import Oracle
from iava.methods.registry import names, resolve
from iava.methods.trace import Trace
from tests import naive, tiny

QUESTIONS = ["Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?"]
SETTINGS = {"top_i": 5, "lam": -1.0, "negative": "zeros"}
PICTURE = tiny.image(6, (24, 24))  # 3 x 3 tokens of 8 pixels


@pytest.fixture
def setup():
    return tiny.model(0), tiny.processor()


def ask(setup, method, *questions, seed=0, steps=5):
    model, proc = setup
    trace = Trace()
    torch.manual_seed(seed)
    inputs = tiny.inputs(proc, PICTURE, *questions)
    new = model.generate(
        **inputs,
        custom_generate=lambda *args, **loop: method(*args, trace=trace, **loop),
        max_new_tokens=steps,
    )
    rows = new[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows], trace.reading.get("selected")


def by_hand(setup, question, keep):
    """Tokens of the contrast with the image of which only `keep` is left."""
    branches = naive.Branches(*setup, PICTURE, question)
    branches.negative = naive.embeddings(setup[0], naive.prompt_inputs(setup[1], PICTURE, question), keep)
    return branches.decode(5)


def test_random_tokens_are_as_many_and_each_prompts_own(setup):
    method = RandomTokens(setup[1], **SETTINGS)
    _, published = ask(setup, IAVA(setup[1], **SETTINGS), *QUESTIONS)
    tokens, together = ask(setup, method, *QUESTIONS)
    counts = published.sum(dim=1).tolist()
    assert together.sum(dim=1).tolist() == counts
    assert 0 < min(counts) < 9
    for row, question in enumerate(QUESTIONS):
        alone, selected = ask(setup, method, question)
        assert selected[0].tolist() == together[row].tolist()
        assert alone == [tokens[row]] == [by_hand(setup, question, together[row].tolist())]
    drawn = {str(ask(setup, method, *QUESTIONS, seed=seed, steps=1)[1].tolist()) for seed in range(4)}
    assert len(drawn) > 1
    assert str(together.tolist()) in drawn


def test_random_tokens_are_spread_evenly():
    chosen = torch.zeros(9)
    setup = tiny.model(0), tiny.processor()
    for seed in range(60):
        _, selected = ask(setup, RandomTokens(setup[1], **SETTINGS), QUESTIONS[0], seed=seed, steps=1)
        chosen += selected[0]
    expected = chosen.sum() / 9
    assert chosen.min() > expected / 3
    assert chosen.max() < 2 * expected


def test_relevant_tokens_rise_most(setup):
    tokens, selected = ask(setup, RelevantTokens(setup[1], **SETTINGS), *QUESTIONS)
    for row, question in enumerate(QUESTIONS):
        general, query = (
            naive.attention(*setup, PICTURE, text).mean(dim=(0, 1)).tolist() for text in (naive.GENERAL, question)
        )
        count = sum(naive.irrelevant(general, query, top_i=5, lam=-1.0))
        rises = sorted(range(9), key=lambda n: general[n] - query[n])[:count]
        keep = [n in rises for n in range(9)]
        assert selected[row].tolist() == keep
        assert tokens[row] == by_hand(setup, question, keep)


@pytest.mark.parametrize("negative", ["zeros", "drop"])
def test_no_image_keeps_nothing(setup, negative):
    tokens, _ = ask(setup, NoImage(negative=negative), *QUESTIONS)
    if negative == "zeros":
        assert tokens == [by_hand(setup, question, [False] * 9) for question in QUESTIONS]
    assert tokens == ask(setup, IAVA(setup[1], lam=50.0, negative=negative), *QUESTIONS)[0]


class TestNoise:
    def test_stands_where_the_selected_tokens_stood(self, setup):
        seen = []

        class Spy(Noise):
            def branches(self, prompt):
                found = super().branches(prompt)
                seen.append((prompt, found[0].embeddings))
                return found

        _, selected = ask(setup, Spy(setup[1], **SETTINGS), *QUESTIONS, steps=1)
        (prompt, embeddings), *_ = seen
        for row, question in enumerate(QUESTIONS):
            image = prompt.is_image[row]
            original = prompt.main.embeddings[row]
            assert torch.equal(embeddings[row, ~image], original[~image])
            assert not embeddings[row, image][~selected[row]].any()
            kept = embeddings[row, image][selected[row]]
            assert len(kept) > 0
            assert ((kept - original[image][selected[row]]).abs() > 1e-4).any(dim=1).all()
            ask(setup, Spy(setup[1], **SETTINGS), question, steps=1)
            alone = seen[-1][1][0, seen[-1][0].is_image[0]][selected[row]]
            torch.testing.assert_close(alone, kept, atol=1e-5, rtol=1e-5)

    def test_has_the_features_mean_and_spread(self):
        features = torch.randn(20_000, 3) * torch.tensor([0.1, 1.0, 5.0]) + torch.tensor([2.0, 0.0, -30.0])
        noise = _like(features, torch.Generator().manual_seed(1))
        torch.testing.assert_close(noise.mean(0), features.mean(0), atol=0.15, rtol=0.01)
        torch.testing.assert_close(noise.std(0), features.std(0), atol=0.0, rtol=0.03)
        assert torch.corrcoef(torch.stack([noise[:, 1], features[:, 1]]))[0, 1].abs() < 0.05

    def test_needs_embeddings_to_replace(self):
        with pytest.raises(ValueError, match="negative is 'hide': it must be one of zeros, drop"):
            Noise(negative="hide")


def informed(setup, regions):
    oracle = Oracle(negative="zeros").bind(*setup)
    return oracle.with_regions(partial(token_boxes, *setup, PICTURE), regions)


class TestOracle:
    @pytest.mark.parametrize(
        ("box", "gone"),
        [
            ((9, 9, 15, 15), {4}),
            ((0, 0, 8, 8), {0}),
            ((7, 7, 9, 9), {0, 1, 3, 4}),
            ((0, 17, 24, 24), {6, 7, 8}),
        ],
    )
    def test_keeps_all_but_the_region(self, setup, box, gone):
        oracle = informed(setup, {question: [box] for question in QUESTIONS})
        keep = [n not in gone for n in range(9)]
        assert ask(setup, oracle, *QUESTIONS)[0] == [by_hand(setup, question, keep) for question in QUESTIONS]

    def test_each_question_has_its_own(self, setup):
        regions = {QUESTIONS[0]: [(0, 0, 8, 8), (16, 16, 24, 24)], QUESTIONS[1]: [(9, 9, 15, 15)], QUESTIONS[2]: []}
        gone = [{0, 8}, {4}, set()]
        lvlm = load(*setup)
        answers = lvlm.ask_many(PICTURE, QUESTIONS, method=informed(setup, regions), max_new_tokens=5)
        for answer, question, lost in zip(answers, QUESTIONS, gone, strict=True):
            expected = by_hand(setup, question, [n not in lost for n in range(9)])
            assert answer.tokens == [token for token in expected if token != 2]
            one = lvlm.ask(PICTURE, question, method=informed(setup, regions), max_new_tokens=5)
            assert one.tokens == answer.tokens

    def test_says_what_it_lacks(self, setup):
        with pytest.raises(ValueError, match="oracle must know which region answers"):
            ask(setup, Oracle(negative="zeros"), QUESTIONS[0])
        with pytest.raises(ValueError, match="oracle knows the regions of other questions"):
            ask(setup, informed(setup, {QUESTIONS[1]: []}), QUESTIONS[0])
        setup[0].config.model_type = "strange"
        with pytest.raises(ValueError, match="does not know where strange's image tokens look"):
            ask(setup, informed(setup, {QUESTIONS[0]: []}), QUESTIONS[0])


class TestPromptBias:
    HINT = "Yes , it is a dog ."

    def test_the_hint_follows_the_question(self, setup):
        lvlm = load(*setup)
        expected = [
            lvlm.ask(PICTURE, f"{question} {self.HINT}", method="greedy", max_new_tokens=5) for question in QUESTIONS
        ]
        found = lvlm.ask_many(PICTURE, QUESTIONS, method="prompt-bias", hint=self.HINT, max_new_tokens=5)
        assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
        plain = lvlm.ask_many(PICTURE, QUESTIONS, method="greedy", max_new_tokens=5)
        assert [answer.tokens for answer in plain] != [answer.tokens for answer in found]
        assert found[0].settings == {"hint": self.HINT}

    def test_a_prompt_of_ones_own_must_hold_it(self, setup):
        method = PromptBias(self.HINT, setup[1])
        with pytest.raises(ValueError, match=r"prompt 1 of 2 does not say 'Yes , it is a dog \.': write") as no:
            ask(setup, method, f"{QUESTIONS[0]} {self.HINT}", QUESTIONS[1])
        assert "\n" not in str(no.value)
        model, proc = setup
        inputs = tiny.inputs(proc, PICTURE, f"{QUESTIONS[0]} {self.HINT}")
        plain = model.generate(**inputs, max_new_tokens=5)
        assert torch.equal(plain, model.generate(**inputs, max_new_tokens=5, custom_generate=method))
        with pytest.raises(ValueError, match=r"use PromptBias\(processor=processor\)"):
            model.generate(**inputs, max_new_tokens=5, custom_generate=PromptBias(self.HINT))

    def test_special_tokens_and_blank_hints_are_refused(self, setup):
        with pytest.raises(ValueError, match="the question contains '<image>'"):
            load(*setup).ask(PICTURE, QUESTIONS[0], method="prompt-bias", hint="<image>")
        with pytest.raises(ValueError, match="hint is ' ': it must be a request"):
            PromptBias(" ")


class TestBrief:
    REQUEST = "where is the dog ?"

    def test_the_request_takes_the_place_of_the_question(self, setup):
        lvlm = load(*setup)
        expected = lvlm.ask(PICTURE, self.REQUEST, method="greedy", max_new_tokens=5)
        found = lvlm.ask(PICTURE, QUESTIONS[0], method="brief", request=self.REQUEST, max_new_tokens=5)
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.logits, expected.logits)
        assert resolve("brief")().reword("Describe this image in detail.") == "Briefly describe this image."

    def test_a_prompt_of_ones_own_must_say_it(self, setup):
        with pytest.raises(ValueError, match=r"does not say 'Briefly describe this image\.': write it in place of"):
            ask(setup, resolve("brief")(processor=setup[1]), QUESTIONS[0])


@pytest.mark.parametrize("name", ["iava-random", "iava-relevant", "no-image", "noise", "oracle"])
def test_bad_settings_get_one_line(name):
    for setting, value in (("alpha", -1), ("beta", 1.5), ("negative", "ones")):
        with pytest.raises(ValueError, match=f"{setting} is {value!r}: it must be"):
            resolve(name)(**{setting: value})


def test_which_are_controls():
    assert {name for name in names() if resolve(name).control} == {
        *("greedy", "sample", "apc", "bias", "prompt-bias", "iava-random", "iava-relevant", "no-image", "noise"),
        *("end-bias", "token-limit", "brief", "verify", "best-of", "restore"),
    }
