"""What metrics are computed from: records of answers, and the parts of a benchmark, one for each row of a table."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Record = dict[str, Any]
"""One answer of one method to one question, as a run's `records.jsonl` holds it."""

LOWER_IS_BETTER = ("chair_i", "chair_s", "chair", "hal", "cog")
POINTS = ("score", "things", "words")
"""Metrics on a scale of their own. All others are fractions of 1."""


@dataclass(frozen=True)
class Part:
    """Questions that make one row of the results.

    Args:
        name: the row's category.
        holds: whether questions of a category belong to the part.
        tally: N records -> (N, K), what each record adds to K sums.
        rates: (..., K) sums -> metrics, each (...).
        main: the metric in which methods are compared.
    """

    name: str
    holds: Callable[[str], bool]
    tally: Callable[[Sequence[Record]], np.ndarray]
    rates: Callable[[np.ndarray], dict[str, np.ndarray]]
    main: str


class Scored(Protocol):
    """A benchmark, as far as its metrics need it."""

    @property
    def name(self) -> str:
        """The data set's name."""

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """The parts that questions of these categories make, "overall" first."""

    def right(self, records: Sequence[Record]) -> float:
        """How right a method is on one unit of evidence (see `unit_of`), 0 to 1, for the paired test."""


def group_of(record: Record) -> str:
    """The group that a record's question belongs to. Intervals draw whole groups. The default is the image."""
    return record["group"] if "group" in record else record["image"]


def unit_of(record: Record) -> Hashable:
    """What counts once as evidence in a paired test.

    A question with a group of its own counts with its whole group. Any other counts once for each image: POPE asks the
    same positive in several categories.
    """
    return record["group"] if "group" in record else (record["image"], record["question"])
