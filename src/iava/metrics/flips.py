"""The answers that a method changes: questions that it gains, and questions that it loses."""

from collections.abc import Sequence
from dataclasses import dataclass

from iava.metrics.parts import Record, group_of

REFERENCES = {False: "greedy", True: "sample"}
"""By whether a method draws its tokens, the plain decoding that its answers are compared with."""


@dataclass(frozen=True)
class Flips:
    """Questions that one of two methods answers rightly and the other does not.

    Args:
        method: the method that is compared with plain decoding.
        asked: the number of different questions that both answered.
        gained, lost: the records of plain decoding and of the method, of each question that only the method, or only
            plain decoding, answers rightly. A question in several categories is listed once.
    """

    method: str
    asked: int
    gained: list[tuple[Record, Record]]
    lost: list[tuple[Record, Record]]


def flips(method: str, ours: Sequence[Record], plain: Sequence[Record]) -> Flips:
    """The flips of a method against plain decoding, in the order of its records, over questions of yes and no."""
    theirs = {record["id"]: record for record in plain}
    both = {
        (group_of(record), record["image"], record["question"]): (theirs[record["id"]], record)
        for record in reversed(ours)
        if record["id"] in theirs and record["truth"] in ("yes", "no")
    }
    pairs = list(reversed(both.values()))
    return Flips(
        method,
        len(pairs),
        [(their, our) for their, our in pairs if _right(our) and not _right(their)],
        [(their, our) for their, our in pairs if _right(their) and not _right(our)],
    )


def _right(record: Record) -> bool:
    return record["parsed"] == record["truth"]


def shown(pairs: Sequence[tuple[Record, Record]], most: int) -> list[tuple[Record, Record]]:
    """The first pairs, one for each image."""
    first: dict[str, tuple[Record, Record]] = {}
    for pair in pairs:
        first.setdefault(pair[1]["image"], pair)
    return list(first.values())[:most]
