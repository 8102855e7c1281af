"""The sentence about a method says what its interval says."""

from iava.reporting.verdicts import verdicts


def sentence(difference, low, high, control="no-image", draws=False):
    comparison = {"control": control, "metric": "accuracy", "difference": difference, "interval": [low, high]}
    return verdicts([{"method": "iava", "category": "overall", "draws": draws, "comparison": comparison}])


def test_the_sentence_says_what_the_interval_says():
    assert sentence(-0.012, -0.02, -0.004, "greedy") == [
        "IAVA is 1.2 points below the best control (greedy), 95 % interval [-2.0, -0.4]: it does not help here."
    ]
    assert sentence(0.021, 0.004, 0.04) == [
        "IAVA is 2.1 points above the best control (no image), 95 % interval [+0.4, +4.0]: it helps here."
    ]
    assert sentence(0.008, -0.004, 0.02) == [
        "IAVA is 0.8 points above the best control (no image), 95 % interval [-0.4, +2.0]: no difference is shown here."
    ]
    assert sentence(0.0, 0.0, 0.0) == [
        "IAVA is as accurate as the best control (no image), 95 % interval [+0.0, +0.0]: no difference is shown here."
    ]


def test_the_sentence_names_the_mode_of_methods_that_draw():
    assert sentence(0.021, 0.004, 0.04, "apc", draws=True) == [
        "IAVA is 2.1 points above the best control that draws (APC-only), 95 % interval [+0.4, +4.0]: it helps here."
    ]


def test_without_a_control_nothing_is_claimed():
    for draws, words in ((False, "without a control,"), (True, "without a control that draws its tokens, too,")):
        (said,) = verdicts([{"method": "iava", "category": "overall", "draws": draws, "comparison": None}])
        assert f"was run {words}" in said
        assert "nothing can be said" in said
