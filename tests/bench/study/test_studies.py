"""Variants select what their definition says, and every number of a study is that of its records."""

import json

import numpy as np
import pytest
import torch

from iava.bench.pope import auc
from iava.bench.runner import Plan
from iava.bench.study.auto import variants
from iava.bench.study.candidates import Relevant, _query, best_heads, candidates, noun_attention, search
from iava.bench.study.compare import outcomes
from iava.bench.study.margins import tried
from iava.bench.study.variants import Averaged, Ruled, Steady
from iava.bench.study.wording import overlap
from iava.engine.negative import drop
from iava.lvlm import LVLM
from iava.methods.base import Trace
from tests import naive, tiny
from tests.bench import made
from tests.commands import refused, run

QUESTION = "Is there a red dog in the image ?"
GENERALS = ("Describe this image .", "What ?", "See the picture .")
PLAN = Plan("tiny", {"greedy": {}, "iava": {"top_i": 0.5, "lam": -1.0}}, "tune-heldout", 1)


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def ask(lvlm, method, seed=0):
    return lvlm.ask(tiny.image(seed), QUESTION, method=method, explain=True, max_new_tokens=1)


class TestVariants:
    def test_otsu_is_auto(self, lvlm):
        auto = lvlm.method("iava", top_i="auto", lam="auto")
        for seed in range(3):
            ours = ask(lvlm, Ruled("otsu-both", "otsu", top_i="auto", lam="auto"), seed)
            assert torch.equal(ours.explanation.selected, ask(lvlm, auto, seed).explanation.selected)
            assert ours.method == "otsu-both"

    def test_rules_differ(self, lvlm):
        def chosen(rule, seed):
            method = Ruled(rule, rule, top_i="auto", lam=-9.0)
            return ask(lvlm, method, seed).explanation.selected.tolist()

        assert len({str([chosen(rule, seed) for seed in range(3)]) for rule in ("otsu", "gap", "half")}) > 1

    def test_the_mean_of_several_instructions(self, lvlm):
        seen = ask(lvlm, Averaged("mean", GENERALS, top_i=4, lam=-1.0)).explanation
        rows = [naive.attention(lvlm.model, lvlm.processor, tiny.image(), text) for text in GENERALS]
        mean = torch.stack(rows).mean(dim=0)
        torch.testing.assert_close(seen.heads_general, mean.to(seen.heads_general), atol=1e-5, rtol=0)

    def test_falls_beyond_what_the_wording_does(self, lvlm):
        seen = ask(lvlm, Steady("steady", GENERALS, 1.0, lam=-9.0)).explanation
        picture, proc = tiny.image(), lvlm.processor
        query = naive.attention(lvlm.model, proc, picture, QUESTION).mean(dim=(0, 1))
        falls = [naive.attention(lvlm.model, proc, picture, g).mean(dim=(0, 1)) - query for g in GENERALS]
        mean, std = np.mean(np.stack(falls), axis=0), np.std(np.stack(falls), axis=0, ddof=1)
        assert seen.selected.tolist() == (mean > std).tolist()
        assert 0 < sum(seen.selected.tolist()) < 9

    def test_names_tell_them_apart(self):
        made_ = variants({"alpha": 0.5})
        assert len({method.name for method in made_}) == len({json.dumps(m.settings()) for m in made_}) == 11
        assert {method.settings()["alpha"] for method in made_} == {0.5}


class TestCandidates:
    def test_the_second_branch_comes_out_alone(self, lvlm):
        settings = {"top_i": 0.5, "lam": -1.0, "alpha": 1.0}
        alone = next(m for m in candidates(lvlm, settings, oracle=False) if m.name == "iava")
        plain, both = ask(lvlm, lvlm.method("greedy")).logits, ask(lvlm, lvlm.method("iava", **settings)).logits
        torch.testing.assert_close(2 * plain - ask(lvlm, alone).logits, both, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("alone", [False, True])
    def test_everything_but_the_most_attended(self, lvlm, alone):
        heads = [(0, 1), (2, 0)]
        method = Relevant("x", _query, heads, 0.34, alone, general=GENERALS[0], negative="drop")
        trace = Trace()
        seen = []

        def spy(prompt, keep):
            seen.append(keep)
            return drop(prompt, keep)

        method._negative = spy
        inputs = tiny.inputs(lvlm.processor, tiny.image(), QUESTION)
        bound = method.bind(lvlm.model, lvlm.processor)
        lvlm.model.generate(**inputs, custom_generate=lambda *a, **k: bound(*a, trace=trace, **k), max_new_tokens=1)
        rows = naive.attention(lvlm.model, lvlm.processor, tiny.image(), QUESTION)
        scores = (rows[0, 1] + rows[2, 0]) / 2
        top = set(scores.topk(3).indices.tolist())
        assert [n in top for n in range(9)] == [kept == alone for kept in seen[0][0].tolist()]

    def test_the_noun_is_where_the_prompt_is_cut(self, lvlm):
        maps = []
        read = noun_attention(lvlm.processor.tokenizer)

        def spy(prompt, general, query):
            maps.append(read(prompt, general, query))
            return maps[-1]

        method = Relevant("x", spy, [(0, 0)], 0.3, False, general=GENERALS[0])
        lvlm.ask_many(tiny.image(), [QUESTION, "Is there a cat in the image ?"], method=method, max_new_tokens=1)
        words = lvlm.processor.tokenizer
        inputs = naive.prompt_inputs(lvlm.processor, tiny.image(), QUESTION)
        end = inputs["input_ids"][0].tolist().index(words.convert_tokens_to_ids("dog")) + 1
        cut = {k: v[:, :end] if v.dim() == 2 else v for k, v in inputs.items()}
        lvlm.model.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                rows = lvlm.model(**cut, output_attentions=True).attentions
        finally:
            lvlm.model.set_attn_implementation("sdpa")
        image = cut["input_ids"][0] == lvlm.model.config.image_token_id
        expected = torch.stack([row[0, :, -1][:, image] for row in rows])
        torch.testing.assert_close(maps[0][0], expected, atol=1e-5, rtol=0)

    def test_other_questions_have_no_noun(self, lvlm):
        method = Relevant("x", noun_attention(lvlm.processor.tokenizer), [(0, 0)], 0.3, False, general=GENERALS[0])
        with pytest.raises(ValueError, match="the noun is looked for in POPE's questions"):
            lvlm.ask(tiny.image(), "What is in the picture ?", method=method, max_new_tokens=1)

    def test_heads_with_most_attention_inside(self):
        query = [[[0.1, None], [0.7, None]], [[0.9, None], [0.2, None]]]
        assert best_heads({"heads": {"query": query}}, 2) == [(1, 0), (0, 1)]

    def test_margins_by_hand(self):
        truths = ["yes", "yes", "no", "no"]
        margins = {"greedy": [1.0, -0.5, 0.5, -4.0], "x": [1.0, -2.0, 2.0, -4.0], "x alone": [3.0, 1.0, -1.0, -9.0]}
        margins |= {"no image": [0.5, 0.5, 1.0, 0.0], "general prompt": [0.0] * 4}
        records = [
            {"id": str(n), "image": str(n), "method": method, "truth": truth, "yes": value, "no": 0.0}
            for method, values in margins.items()
            for n, (value, truth) in enumerate(zip(values, truths, strict=True))
        ]
        greedy, *found = tried(records, seed=0)
        assert (greedy["auc"], greedy["accuracy"], greedy["best_bias"]) == (0.75, 0.5, 0.75)
        by = {(one["candidate"], one["alpha"], one["calibration"], one["weight"]): one for one in found}
        one = by["x", 2.0, "", 0.0]
        # 3 m - 2 n: 1, 2.5, -2.5, -4
        assert (one["auc"], one["accuracy"], one["kept_rate"], one["best_bias"]) == (1.0, 1.0, 1.0, 1.0)
        assert one["difference"][0] == pytest.approx(0.5)
        alone = by["x alone", -0.5, "", 0.0]
        # (m + n) / 2: 2, 0.25, -0.25, -6.5
        assert (alone["auc"], alone["accuracy"]) == (1.0, 1.0)
        calibrated = by["x", 0.25, "no image", 0.5]["auc"]
        # 1.25 m - 0.25 n - 0.5 c
        assert calibrated == auc([0.75, -0.375, -0.375, -4.0], truths)
        assert ("general prompt", 1.0, "", 0.0) not in by
        assert [one["auc"] for one in found] == sorted((one["auc"] for one in found), reverse=True)

    def test_a_whole_search(self, lvlm, tmp_path):
        found = search(lvlm, PLAN, tmp_path, best=[(1, 0)])
        names = {one["candidate"] for one in found["tried"]}
        assert {"oracle", "random", "noun, best, 10%", "query, late, 10% alone"} <= names
        assert "Second branch" in (tmp_path / "study.md").read_text()


def test_outcomes_are_those_of_the_records():
    records = made.records()
    greedy, _, bias, ours = outcomes(records, made.METHODS, ["greedy", "apc"], benchmark="pope", seed=1)
    of = {m: [r for r in records if r["method"] == m] for m in made.METHODS}
    right = {m: np.mean([r["parsed"] == r["truth"] for r in some]) for m, some in of.items()}
    assert ours["metrics"]["accuracy"] == pytest.approx(right["iava"])
    assert ours["against"]["greedy"][0] == pytest.approx(right["iava"] - right["greedy"])
    assert ours["against"]["apc"][0] == pytest.approx(right["iava"] - right["apc"])
    assert list(greedy["against"]) == ["apc"]
    # What only adds a constant lies on the curve.
    assert bias["beyond_bias"][0] == pytest.approx(0.0, abs=1e-9)
    absent = [r for r in of["iava"] if r["truth"] == "no" and r["category"] == "adversarial"]
    assert ours["false_yes"]["adversarial"] == pytest.approx(np.mean([r["parsed"] == "yes" for r in absent]))
    assert ours["selected"] == (None, None)


def test_overlap_by_hand():
    chosen = [[0, 1], [0, 1], [1, 2]] + [[]] * 6 + [[]]
    found = overlap([{"image": "a", "tokens": 10, "selected": chosen}], seed=0)
    assert found["jaccard"][0][:4] == [1.0, 1.0, pytest.approx(1 / 3), 0.0]
    # Of 15 pairs of the first six: one equal, two share one of three, nine nothing, three both empty.
    assert found["paraphrases"][0] == pytest.approx((1 + 2 / 3 + 3) / 15)
    assert found["unrelated"][0] == 1.0
    assert found["across"][0] == pytest.approx(0.5)
    # Of three pairs of two tokens each 0.4 are expected in both; empty ones as above.
    assert found["chance"][0] == pytest.approx((3 * 0.4 / 3.6 + 21) / 45)


class TestCommand:
    @pytest.mark.parametrize("name", ["auto", "wording", "negatives"])
    def test_a_whole_study(self, name, lvlm, tmp_path, monkeypatch):
        monkeypatch.setattr("iava.cli._load", lambda model: lvlm)
        more = ("--overlaps", 1) if name == "wording" else ()
        options = ("--split", "tune-heldout", "--limit", 1, "--lam", "-1", "--out", tmp_path)
        result = run("study", name, *options, *more)
        assert result.exit_code == 0, result.output
        found = json.loads((tmp_path / "study.json").read_text())
        assert len(found["outcomes"]) == {"auto": 13, "wording": 13, "negatives": 7}[name]
        assert (tmp_path / "study.md").read_text() in result.stdout
        assert (tmp_path / "study.svg").exists()
        monkeypatch.setattr(LVLM, "ask_many", None)
        again = run("study", name, *options, *more)
        assert again.exit_code == 0, again.output
        assert json.loads((tmp_path / "study.json").read_text()) == found

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["auto", "--split", "none"], "unknown split 'none'"),
            (["auto", "--bench", "chair"], "chair is not answered with yes or no alone"),
            (["negatives", "--model", "other"], "--data is missing"),
            (["wording", "--overlaps", "0"], "overlaps is 0"),
            (["regions", "--images", "x"], "--instances and --images belong together"),
            (["regions", "--per-image", "0"], "per_image is 0"),
            (["regions", "--split", "none"], "unknown split 'none'"),
            (["candidates", "--regions", "none.json"], "cannot read none.json"),
        ],
    )
    def test_bad_input(self, arguments, words, tmp_path):
        assert words in refused("study", *arguments, "--out", tmp_path / "new")
        assert not (tmp_path / "new").exists()
