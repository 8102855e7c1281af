"""Sentences about results: what each method's overall row says, and what a reader must know beside the table."""

from collections.abc import Sequence

from iava.methods import METHODS
from iava.metrics.parts import LOWER_IS_BETTER, Record
from iava.metrics.results import Row, is_control
from iava.reporting.formatting import number, pair, within


def title(method: str) -> str:
    """A method's name for readers; a variant that has no command-line name keeps its own."""
    return (METHODS[method].title or METHODS[method].__name__) if method in METHODS else method


def remarks(records: Sequence[Record]) -> list[str]:
    """What a reader of the results must know: how many questions got no answer, an empty one, or neither yes nor no."""
    said = []
    for method in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == method]
        failed = [record for record in mine if "error" in record]
        answered = [record for record in mine if "error" not in record]
        empty = [record for record in answered if not record["text"].strip()]
        vague = [r for r in answered if "yes" in r and r["parsed"] is None and r["text"].strip()]
        for some, words in (
            (failed, "questions got no answer and are left out"),
            (empty, "answers are empty"),
            (vague, "answers are read as neither yes nor no, and count as wrong"),
        ):
            if some:
                example = some[0].get("error", repr(some[0]["text"]))
                said.append(f"{title(method)}: {len(some)} of {len(mine)} {words}; {some[0]['id']}: {example}")
    return said


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One sentence for each method that is no control: what the overall row says, for better or worse."""
    ours = [row for row in rows if row["category"] == "overall" and not is_control(row["method"])]
    return [_verdict(row) for row in ours]


def _verdict(row: Row) -> str:
    name, comparison = title(row["method"]), row["comparison"]
    if comparison is None:
        return f"{name} was run without a control, so nothing can be said about whether it helps."
    metric, (low, high) = comparison["metric"], comparison["interval"]
    difference = number(metric, comparison["difference"], sign=True)
    control = f"the best control ({title(comparison['control'])})"
    limits = f"95 % interval {pair(metric, (low, high), sign=True)}"
    better, worse = (high < 0, low > 0) if metric in LOWER_IS_BETTER else (low > 0, high < 0)
    outcome = "it helps here." if better else "it does not help here." if worse else "no difference is shown here."
    where = "" if metric == "accuracy" else f"In {within(metric)}, "
    if metric in LOWER_IS_BETTER:
        where = f"In {within(metric)}, of which less is better, "
    if difference[1:] == "0.0":
        equal = "is as accurate as" if metric == "accuracy" else "is level with"
        return f"{where}{name} {equal} {control}, {limits}: {outcome}"
    side = "above" if difference[0] == "+" else "below"
    return f"{where}{name} is {difference[1:]} points {side} {control}, {limits}: {outcome}"
