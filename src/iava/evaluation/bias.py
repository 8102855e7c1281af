"""The constant bias: added to greedy decoding's yes-no margin so that it says yes as often as another method."""

from collections.abc import Sequence

import numpy as np

from iava.metrics.parts import Record


def bias_of(records: Sequence[Record], target: str) -> float | None:
    """The bias with which greedy decoding says yes as often as the target does, on the same questions.

    Args:
        records: of greedy decoding and of the target.
        target: a method.

    Returns:
        The bias, in logits; None if one of the two answered nothing.
    """
    answered = [record for record in records if "error" not in record and "yes" in record]
    yes = [record["parsed"] == "yes" for record in answered if record["method"] == target]
    margins = [record["yes"] - record["no"] for record in answered if record["method"] == "greedy"]
    return fit_bias(margins, sum(yes) / len(yes)) if yes and margins else None


def fit_bias(margins: Sequence[float], yes_ratio: float) -> float:
    """The bias that brings the share of margins + bias above 0 closest to a wanted share; of several the nearest to 0.

    Args:
        margins: logit of yes minus logit of no, of each question.
        yes_ratio: the wanted share, 0 to 1.
    """
    values = np.unique(margins)
    thresholds = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [values[0] - 1, values[-1] + 1]])
    above = (np.asarray(margins)[None] > thresholds[:, None]).mean(axis=1)
    miss = np.abs(above - yes_ratio)
    nearest = np.flatnonzero(miss <= miss.min() + 1e-12)
    return -float(min(thresholds[nearest], key=abs))
