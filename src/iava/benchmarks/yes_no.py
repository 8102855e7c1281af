"""The metrics of yes-no questions, as POPE defines them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from iava.metrics.parts import Part, Record
from iava.metrics.stats import share

COUNTS = ("n", "correct", "true_yes", "said_yes", "is_yes", "unparsed")


def tally(truths: Iterable[str], parsed: Iterable[str | None]) -> np.ndarray:
    """(Q, 6) float: what each question adds to the COUNTS from which `rates` computes the metrics."""
    rows = [
        (1, answer == truth, answer == truth == "yes", answer == "yes", truth == "yes", answer is None)
        for truth, answer in zip(truths, parsed, strict=True)
    ]
    return np.array(rows, dtype=float).reshape(-1, len(COUNTS))


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """POPE's metrics as fractions of 1. "yes" is the positive class, and an unparsed answer is a wrong one.

    Args:
        counts: (..., 6) sums of `tally`.

    Returns:
        accuracy, precision, recall, f1, yes_ratio and unparsed, each of shape (...). 0 where nothing was counted.
    """
    n, correct, true_yes, said_yes, is_yes, unparsed = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    return {
        "accuracy": share(correct, n),
        "precision": share(true_yes, said_yes),
        "recall": share(true_yes, is_yes),
        "f1": share(2 * true_yes, said_yes + is_yes),
        "yes_ratio": share(said_yes, n),
        "unparsed": share(unparsed, n),
    }


def part(name: str, holds: Callable[[str], bool]) -> Part:
    """A row of POPE's metrics."""

    def tally_records(records: Sequence[Record]) -> np.ndarray:
        return tally([record["truth"] for record in records], [record["parsed"] for record in records])

    return Part(name, holds, tally_records, rates, "accuracy")
