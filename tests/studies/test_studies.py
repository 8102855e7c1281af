"""Variants select by their definition, and studies report the values of their records."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.evaluation.plan import Plan
from iava.lvlm.model import LVLM
from iava.metrics.results import rows_of
from iava.studies.auto import adaptive_variants
from iava.studies.compare import method_outcomes
from iava.studies.variants import RULES, MeanGeneral, RuleSelection, StableDrop
from iava.studies.wording import run_wording_study, selection_overlap
from tests import made, naive, tiny
from tests.commands import refused, run

QUESTION = "Is there a red dog in the image ?"
GENERALS = ("Describe this image .", "What ?", "See the image .")
PLAN = Plan("tiny", {"greedy": {}, "iava": {"top_i": 0.5, "lam": -1.0}}, "tune-heldout", 1)


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def ask(lvlm, method, seed=0):
    return lvlm.ask(tiny.image(seed), QUESTION, method=method, explain=True, max_new_tokens=1)


class TestVariants:
    def test_otsu_is_the_rule_of_auto(self, lvlm):
        auto = lvlm.method("iava", top_i="auto", lam="auto")
        for seed in range(3):
            ours = ask(lvlm, RuleSelection("otsu", top_i="auto", lam="auto"), seed)
            assert torch.equal(ours.explanation.selected, ask(lvlm, auto, seed).explanation.selected)
            assert ours.method == "otsu"

    def test_rules_differ(self, lvlm):
        def chosen(rule, seed):
            return ask(lvlm, RuleSelection(rule, top_i="auto", lam=-9.0), seed).explanation.selected.tolist()

        assert len({str([chosen(rule, seed) for seed in range(3)]) for rule in RULES}) > 1

    def test_the_mean_of_several_instructions(self, lvlm):
        seen = ask(lvlm, MeanGeneral("mean", GENERALS, top_i=4, lam=-1.0)).explanation
        rows = [naive.attention(lvlm.model, lvlm.processor, tiny.image(), text) for text in GENERALS]
        mean = torch.stack(rows).mean(dim=0)
        torch.testing.assert_close(seen.heads_general, mean.to(seen.heads_general), atol=1e-5, rtol=0)

    def test_drops_larger_than_their_deviation_over_wordings(self, lvlm):
        seen = ask(lvlm, StableDrop(GENERALS, lam=-9.0)).explanation
        image, proc = tiny.image(), lvlm.processor
        query = naive.attention(lvlm.model, proc, image, QUESTION).mean(dim=(0, 1))
        falls = [naive.attention(lvlm.model, proc, image, g).mean(dim=(0, 1)) - query for g in GENERALS]
        mean, std = np.mean(np.stack(falls), axis=0), np.std(np.stack(falls), axis=0, ddof=1)
        assert seen.selected.tolist() == (mean > std).tolist()
        assert 0 < sum(seen.selected.tolist()) < 9

    def test_variants_have_different_names(self):
        found = adaptive_variants({"alpha": 0.5})
        assert [method.name for method in found] == ["otsu", "gap", "half", "steady"]
        assert {method.settings()["alpha"] for method in found} == {0.5}
        assert {method.settings()["lam"] for method in found} == {"auto"}


def test_outcomes_match_the_records():
    records = made.records()
    # An unanswered question is left out of the comparisons of its method only.
    failed = next(r for r in records if r["method"] == "iava" and r["parsed"] != r["truth"])
    failed["error"] = "no image"
    rows = rows_of(records, benchmark=benchmark("pope"), settings=made.METHODS, seed=1)
    rows = [row for row in rows if row["category"] == "overall"]
    outcomes = {one["method"]: one for one in method_outcomes(rows, records, ["greedy", "apc"], seed=1)}
    greedy, bias, ours = outcomes["greedy"], outcomes["bias"], outcomes["iava"]
    right = {m: {r["id"]: r["parsed"] == r["truth"] for r in records if r["method"] == m} for m in made.METHODS}
    kept = [id for id in right["iava"] if id != failed["id"]]
    assert len(kept) == ours["n"] == greedy["n"] - 1
    assert ours["metrics"]["accuracy"] == pytest.approx(np.mean([right["iava"][id] for id in kept]))
    for name in ("greedy", "apc"):
        difference = np.mean([right["iava"][id] - float(right[name][id]) for id in kept])
        assert ours["against"][name][0] == pytest.approx(difference)
    assert list(greedy["against"]) == ["apc"]
    # Adding a constant leaves a method on the curve.
    assert bias["beyond_bias"][0] == pytest.approx(0.0, abs=1e-9)
    assert ours["selected"] == (None, None)


def test_overlap_by_hand():
    chosen = [[0, 1], [0, 1], [1, 2]] + [[]] * 6 + [[]]
    found = selection_overlap([{"image": "a", "tokens": 10, "selected": chosen}], 6, seed=0)
    assert found["jaccard"][0][:4] == [1.0, 1.0, pytest.approx(1 / 3), 0.0]
    # Of the 15 pairs of the first six, one is equal, two share one of three tokens, nine none, and three are empty.
    assert found["paraphrases"][0] == pytest.approx((1 + 2 / 3 + 3) / 15)
    assert found["unrelated"][0] == 1.0
    assert found["across"][0] == pytest.approx(0.5)
    # Two selections of two of ten tokens share 0.4 tokens on average. Pairs of empty ones count as above.
    assert found["chance"][0] == pytest.approx((3 * 0.4 / 3.6 + 21) / 45)


class TestCommand:
    @pytest.mark.parametrize(
        ("name", "methods"),
        [
            ("auto", ["greedy", "iava", "otsu", "gap", "half", "steady"]),
            ("negatives", ["greedy", "iava", "iava-relevant", "iava-random", "no-image", "noise", "oracle"]),
        ],
    )
    @pytest.mark.slow
    def test_a_whole_study(self, name, methods, lvlm, tmp_path, monkeypatch):
        monkeypatch.setattr("iava.lvlm.loading.load", lambda name: lvlm)
        options = ("--split", "tune-heldout", "--limit", 1, "--lam", "-1", "--out", tmp_path)
        result = run("study", name, *options)
        assert result.exit_code == 0, result.output
        found = json.loads((tmp_path / "results.json").read_text())
        assert [one["method"] for one in found["outcomes"]] == methods
        assert (found["manifest"]["settings"]["split"], found["manifest"]["settings"]["limit"]) == ("tune-heldout", 1)
        assert (tmp_path / "table.md").read_text() in result.stdout
        assert Image.open(tmp_path / "plot.png").width > 500
        monkeypatch.setattr(LVLM, "ask_many", None)
        again = run("study", name, *options)
        assert again.exit_code == 0, again.output
        assert json.loads((tmp_path / "results.json").read_text()) == found

    @pytest.mark.slow
    def test_the_wording_study(self, lvlm, tmp_path, monkeypatch):
        """Each row is IAVA under one instruction, with the selections of its explanations."""
        generals = (*GENERALS, "Is there a cat ?")
        kinds = {"paraphrases": generals[:2], "unrelated": generals[2:]}
        found = run_wording_study(lvlm, PLAN, tmp_path, **kinds)
        records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
        asked = [json.loads(line) for line in (tmp_path / "overlap" / "records.jsonl").read_text().splitlines()]
        questions = [record["question"] for record in asked]
        names = ["paraphrase 1", "paraphrase 2", "unrelated 1", "unrelated 2"]
        methods = [one["method"] for one in found["outcomes"]]
        assert methods == ["greedy", *names, "mean of paraphrases", "mean of all"]
        for n, (name, general) in enumerate(zip(names, generals, strict=True)):
            answers = lvlm.ask_many(
                PLAN.task.open_image(PLAN.task.images[0]),
                questions,
                method=lvlm.method("iava", general=general, **PLAN.methods["iava"]),
                max_new_tokens=1,
                explain=True,
            )
            shares = {r["question"]: r["selected"] for r in records if r["method"] == name}
            for question, answer, record in zip(questions, answers, asked, strict=True):
                selected = answer.explanation.selected
                assert record["selected"][n] == selected.nonzero().flatten().tolist()
                assert shares[question] == pytest.approx(selected.float().mean().item(), abs=1e-6)
        accuracy = [np.mean([r["parsed"] == r["truth"] for r in records if r["method"] == name]) for name in names]
        assert [one["metrics"]["accuracy"] for one in found["outcomes"][1:5]] == pytest.approx(accuracy)
        assert (found["spread"]["lowest"], found["spread"]["highest"]) == (min(accuracy), max(accuracy))
        assert GENERALS[2] in (tmp_path / "table.md").read_text()
        monkeypatch.setattr(LVLM, "ask_many", None)
        monkeypatch.setattr(LVLM, "read", None)
        assert run_wording_study(lvlm, PLAN, tmp_path, **kinds)["overlap"] == found["overlap"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["cost"], "unknown study 'cost': use one of auto, wording, regions, negatives"),
            (["auto", "--split", "none"], "unknown split 'none'"),
            (["auto", "--limit", "0"], "limit is 0"),
            (["auto", "--bench", "chair"], "not every question of chair asks for yes or no"),
            (["auto", "--settings", "none.json"], "none.json is no tune.json"),
            (["negatives", "--model", "other"], "--data is missing"),
            (["regions", "--images", "x"], "--instances and --images belong together"),
            (["auto", "--images", "x", "--instances", "y"], "--instances is for regions only"),
        ],
    )
    def test_bad_input(self, arguments, words, tmp_path):
        assert words in refused("study", *arguments, "--out", tmp_path / "new")
        assert not (tmp_path / "new").exists()
