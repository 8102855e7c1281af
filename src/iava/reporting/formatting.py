"""How numbers are written, wherever they are read: on the terminal, on a page, in Markdown or LaTeX."""

from collections.abc import Mapping, Sequence
from typing import Any

from iava.metrics.parts import POINTS

_HEADINGS = {
    "f1": "F1",
    "yes_ratio": "Yes-ratio",
    "no_ratio": "No-ratio",
    "auc": "AUC",
    "acc_plus": "Acc+",
    "a_acc": "aAcc",
    "q_acc": "qAcc",
    "f_acc": "fAcc",
    "tnr": "TNR",
    "tpr": "TPR",
    "chair_i": "CHAIRi",
    "chair_s": "CHAIRs",
    "chair": "CHAIR",
}
"""Of metrics whose name alone, with a capital, would not do."""
_SHORT = {"precision": "Prec.", "yes_ratio": "Yes", "no_ratio": "No"}


def heading(metric: str, *, short: bool = False) -> str:
    """Above a column; short where there is little room."""
    if short and metric in _SHORT:
        return _SHORT[metric]
    return _HEADINGS.get(metric, metric.replace("_", " ").capitalize())


def within(metric: str) -> str:
    """A metric's name inside a sentence."""
    return _HEADINGS.get(metric, metric.replace("_", " "))


def scale(metric: str) -> int:
    """What a metric's value is multiplied by: fractions are shown in percent, points as they are."""
    return 1 if metric in POINTS else 100


def number(metric: str, value: float | None, *, sign: bool = False) -> str:
    """A metric's value, with one decimal."""
    return "–" if value is None else format(scale(metric) * value, "+.1f" if sign else ".1f")


def pair(metric: str, limits: Sequence[float], *, sign: bool = False) -> str:
    """An interval."""
    return f"[{number(metric, limits[0], sign=sign)}, {number(metric, limits[1], sign=sign)}]"


def p_value(comparison: Mapping[str, Any]) -> str:
    p = comparison["p_holm"]
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
