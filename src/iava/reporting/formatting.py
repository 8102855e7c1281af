"""Metric names and values as text, for the terminal, HTML, Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from typing import Any

from iava.metrics.parts import POINTS

_NAMES = {
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
    "object_f1": "F1 of things",
    "things": "Things named",
}
"""Metrics with a fixed spelling. All others are written as words."""
_SHORT_NAMES = {"precision": "Prec.", "yes_ratio": "Yes", "no_ratio": "No"}


def metric_heading(metric: str, *, short: bool = False) -> str:
    """A metric's column heading; `short` abbreviates it for the terminal."""
    if short and metric in _SHORT_NAMES:
        return _SHORT_NAMES[metric]
    return _NAMES.get(metric, metric.replace("_", " ").capitalize())


def metric_in_sentence(metric: str) -> str:
    """A metric's name inside a sentence."""
    return _NAMES.get(metric, metric.replace("_", " "))


def display_scale(metric: str) -> int:
    """The factor from a metric's value to its text: 100 for fractions (percent), 1 for scores in points."""
    return 1 if metric in POINTS else 100


def format_value(metric: str, value: float | None, *, sign: bool = False) -> str:
    """A metric's value with one decimal, in percent or points; an en dash for None."""
    return "–" if value is None else format(display_scale(metric) * value, "+.1f" if sign else ".1f")


def format_interval(metric: str, limits: Sequence[float], *, sign: bool = False) -> str:
    """An interval (lower, upper) of a metric, such as "[84.1, 86.0]"."""
    return f"[{format_value(metric, limits[0], sign=sign)}, {format_value(metric, limits[1], sign=sign)}]"


def format_p_value(comparison: Mapping[str, Any]) -> str:
    """The Holm-corrected p-value of a row's comparison (see `iava.metrics.results.rows_of`)."""
    p = comparison["p_holm"]
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
