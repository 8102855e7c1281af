"""Sentences about results: whether each method beats the best control, and which answers need attention."""

from collections.abc import Sequence

from iava.methods import METHODS
from iava.metrics.parts import LOWER_IS_BETTER, Record
from iava.metrics.results import Row, is_control
from iava.reporting.formatting import format_interval, format_value, metric_in_sentence


def title(method: str) -> str:
    """A method's name for readers. A variant without a command-line name keeps its own name."""
    return (METHODS[method].title or METHODS[method].__name__) if method in METHODS else method


def remarks(records: Sequence[Record]) -> list[str]:
    """A sentence for each method with failed questions, empty answers, or answers that are neither yes nor no."""
    sentences = []
    for method in dict.fromkeys(record["method"] for record in records):
        own = [record for record in records if record["method"] == method]
        failed = [record for record in own if "error" in record]
        answered = [record for record in own if "error" not in record]
        empty = [record for record in answered if not record["text"].strip()]
        unparsed = [r for r in answered if "yes" in r and r["parsed"] is None and r["text"].strip()]
        for some, words in (
            (failed, "questions got no answer and are left out"),
            (empty, "answers are empty"),
            (unparsed, "answers are neither yes nor no and count as wrong"),
        ):
            if some:
                example = some[0].get("error", repr(some[0]["text"]))
                sentences.append(f"{title(method)}: {len(some)} of {len(own)} {words}; {some[0]['id']}: {example}")
    return sentences


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A sentence for each method that is not a control, from its row of the category "overall"."""
    return [_method_verdict(row) for row in rows if row["category"] == "overall" and not is_control(row["method"])]


def _method_verdict(row: Row) -> str:
    name, comparison = title(row["method"]), row["comparison"]
    if comparison is None:
        missing = "a control that draws its tokens, too," if row["draws"] else "a control,"
        return f"{name} was run without {missing} so nothing can be said about whether it helps."
    metric, (low, high) = comparison["metric"], comparison["interval"]
    difference = format_value(metric, comparison["difference"], sign=True)
    control = f"the best control{' that draws' if row['draws'] else ''} ({title(comparison['control'])})"
    limits = f"95 % interval {format_interval(metric, (low, high), sign=True)}"
    lower_is_better = metric in LOWER_IS_BETTER
    better, worse = (high < 0, low > 0) if lower_is_better else (low > 0, high < 0)
    outcome = "it helps here." if better else "it does not help here." if worse else "no difference is shown here."
    name_of_metric = metric_in_sentence(metric) + (" (lower is better)" if lower_is_better else "")
    where = "" if metric == "accuracy" else f"In {name_of_metric}, "
    if difference[1:] == "0.0":
        equal = "is as accurate as" if metric == "accuracy" else "is level with"
        return f"{where}{name} {equal} {control}, {limits}: {outcome}"
    side = "above" if difference[0] == "+" else "below"
    return f"{where}{name} is {difference[1:]} points {side} {control}, {limits}: {outcome}"
