"""The log odds of objects given a context, against the frequencies of many drawn scenes."""

import math

import numpy as np
import pytest

from iava.pocket import scenes
from iava.pocket.prior import log_odds
from iava.pocket.world import CONTEXTS, OBJECT_CLASSES


@pytest.mark.parametrize("context", ["beach", "office"])
def test_members_appear_as_often_as_in_drawn_scenes(context):
    draws = 4000
    drawn = [
        set(scenes._object_names(np.random.default_rng([9, n]), context, training=bool(n % 2))) for n in range(draws)
    ]
    for name in OBJECT_CLASSES:
        p = 1 / (1 + math.exp(-log_odds(context, name)))
        frequency = sum(name in names for names in drawn) / draws
        assert frequency == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / draws))


def test_one_context_by_hand():
    # Of a foreign object there are 33 - 6 classes.
    assert len(CONTEXTS["beach"]) == 6
    assert log_odds("beach", "cow") == pytest.approx(math.log(0.25 / 27 / (1 - 0.25 / 27)))
