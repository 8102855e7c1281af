"""Thresholds found in the numbers: against every cut tried one by one, and worked by hand."""

import math

import numpy as np
import pytest
import torch

from iava import select_irrelevant
from iava.lvlm.model import LVLM
from iava.methods.adaptive import gap, half, otsu, steady
from iava.methods.select import criteria
from tests import tiny


def classes(kind, high, low):
    """How good a cut is, from its two classes."""
    if kind is otsu:
        p = len(high) / (len(high) + len(low))
        return p * (1 - p) * (np.mean(high) - np.mean(low)) ** 2
    if kind is gap:
        return min(high) - max(low)
    return -abs(sum(high) - (sum(high) + sum(low)) / 2)


@pytest.mark.parametrize("rule", [otsu, gap, half])
def test_the_best_of_all_cuts(rule):
    rng = np.random.default_rng(0)
    values = torch.tensor(rng.gamma(0.5, size=(40, 17)), dtype=torch.float32)
    among = torch.tensor(rng.random((40, 17)) < 0.7)
    among[0] = True
    found = rule(values, among)
    for row in range(40):
        some = np.sort(values[row][among[row]].double().numpy())[::-1]
        best = max(range(1, len(some)), key=lambda k: classes(rule, some[:k], some[k:]))
        assert float(found[row]) == pytest.approx((some[best - 1] + some[best]) / 2)


def test_few_or_equal_values():
    values = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 2.0, 2.0]])
    among = torch.tensor([[False, True, False], [False, False, False], [True, True, True]])
    for rule in (otsu, gap, half):
        found = rule(values, among)
        assert found[:2].tolist() == [[-math.inf], [-math.inf]]
        # Nothing stands out among equals.
        assert float(found[2]) == 2.0


def test_falls_that_are_more_than_wording():
    # means 3, 3, -1; sample standard deviations 1, 3, 0
    falls = torch.tensor([[[2.0, 0.0, -1.0]], [[3.0, 3.0, -1.0]], [[4.0, 6.0, -1.0]]])
    assert steady(falls, 2.0).tolist() == [[True, False, False]]
    assert steady(falls, 0.5).tolist() == [[True, True, False]]


def test_auto_by_hand():
    general = torch.tensor([[0.30, 0.28, 0.02, 0.03, 0.25, 0.04]])
    query = torch.tensor([[0.10, 0.12, 0.01, 0.03, 0.30, 0.02]])
    # falls: 0.20, 0.16, 0.01, 0, -0.05, 0.02: much 0.20 and 0.16; attention is high at 0.30, 0.28 and 0.25.
    valid = torch.ones_like(general, dtype=torch.bool)
    most, lam = criteria(general, query, top_i="auto", lam="auto", valid=valid)
    assert int(most) == 2
    threshold = general.mean() + lam[0, 0] * general.std()
    assert float(threshold) == pytest.approx((0.25 + 0.04) / 2)
    assert select_irrelevant(general, query, top_i="auto", lam="auto").tolist() == [[True, True] + [False] * 4]
    assert select_irrelevant(general, query, top_i="auto", lam=-9.0).tolist() == [[True, True] + [False] * 4]
    assert select_irrelevant(general, query, top_i=6, lam=-9.0).sum() == 4


def test_rows_find_their_own_and_padding_counts_for_nothing():
    general, query = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(0)).square().unbind()
    valid = torch.arange(12) < torch.tensor([[12], [7], [1]])
    together = select_irrelevant(general, query, top_i="auto", lam="auto", valid=valid)
    for row, count in enumerate((12, 7, 1)):
        alone = select_irrelevant(general[row, None, :count], query[row, None, :count], top_i="auto", lam="auto")
        assert together[row, :count].tolist() == alone[0].tolist()
        assert not together[row, count:].any()
    assert not together[2].any()


def test_what_auto_found_is_told_in_numbers_that_select_the_same():
    lvlm = LVLM(tiny.model(), tiny.processor())

    def ask(picture, **settings):
        return lvlm.ask(picture, "Is there a dog ?", explain=True, max_new_tokens=1, **settings)

    counts = set()
    for seed in range(4):
        answer = ask(tiny.image(seed), top_i="auto", lam="auto")
        seen = answer.explanation
        assert (answer.settings["top_i"], answer.settings["lam"]) == ("auto", "auto")
        again = ask(tiny.image(seed), top_i=seen.top_i, lam=seen.lam)
        assert torch.equal(again.explanation.selected, seen.selected)
        assert torch.equal(again.logits, answer.logits)
        assert answer.selected == pytest.approx(seen.selected.float().mean().item())
        counts.add((seen.top_i, seen.lam))
    assert len(counts) > 1
    assert ask(tiny.image(), lam=-0.1).explanation.lam == -0.1


@pytest.mark.parametrize("name", ["top_i", "lam"])
def test_other_words_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 'often': it must be .* or \"auto\""):
        LVLM(tiny.model(), tiny.processor()).method("iava", **{name: "often"})
