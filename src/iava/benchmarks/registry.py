"""How each benchmark is scored: what reads its answers, which questions make a row, and what a row's numbers are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from iava.benchmarks import amber, chair, mme, pope, textvqa
from iava.errors import IavaError
from iava.metrics.parts import Part, Record

Parse = Callable[[str], str | None]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's scorer.

    Args:
        name: of the data set.
        parts: categories that were asked -> the rows they make, "overall" first.
        right: how right a unit's answers are, 0 to 1, for the paired test.
        max_new_tokens: the length of an answer, unless it is chosen.
        parsers: of yes and no, the first being the default; none if nothing is answered with them.
    """

    name: str
    parts: Callable[[Sequence[str]], list[Part]]
    right: Callable[[Sequence[Record]], float]
    max_new_tokens: int = 16
    parsers: Mapping[str, Parse] = field(default_factory=dict)


def parser_of(benchmark: str, name: str | None) -> str | None:
    """The name of a benchmark's parser of yes and no; None: the default, if it has one.

    Raises:
        IavaError: if there is no such parser.
    """
    known = BENCHMARKS[benchmark].parsers
    if name is None:
        return next(iter(known), None)
    if not known:
        raise IavaError(f"--parser was given, but {benchmark} is not answered with yes or no")
    if name not in known:
        raise IavaError(f"unknown parser {name!r} for {benchmark}: use one of {', '.join(known)}")
    return name


def _everything(_: str) -> bool:
    return True


def _as_parsed(record: Record) -> float:
    return float(record["parsed"] == record["truth"])


def _pope(categories: Sequence[str]) -> list[Part]:
    def part(name: str, holds: Callable[[str], bool]) -> Part:
        return Part(name, holds, lambda some: pope.tally(*_columns(some, "truth", "parsed")), pope.rates, "accuracy")

    known = [name for name in pope.CATEGORIES if name in categories]
    others = [name for name in categories if name not in known]
    return [part("overall", _everything), *(part(name, name.__eq__) for name in known + others)]


def _mme(categories: Sequence[str]) -> list[Part]:
    """Perception, cognition and hallucination only where all their subtasks were asked; overall sums what was."""

    def part(name: str, subtasks: Sequence[str]) -> Part:
        def tally(some: Sequence[Record]) -> np.ndarray:
            asked, images = _columns(some, "category", "image")
            return mme.tally(asked, images, [_as_parsed(record) == 1 for record in some], of=subtasks)

        return Part(name, subtasks.__contains__, tally, mme.rates, "score")

    asked = [name for name in mme.SUBTASKS if name in categories]
    totals = {name: subtasks for name, subtasks in mme.TOTALS.items() if set(subtasks) <= set(asked)}
    rows = {"overall": asked, **totals, **{name: [name] for name in asked}}
    return [part(name, subtasks) for name, subtasks in rows.items()]


def _textvqa(_: Sequence[str]) -> list[Part]:
    def tally(some: Sequence[Record]) -> np.ndarray:
        return np.array([(1.0, _agreement(record)) for record in some])

    return [Part("overall", _everything, tally, lambda sums: {"accuracy": sums[..., 1] / sums[..., 0]}, "accuracy")]


def _agreement(record: Record) -> float:
    return textvqa.accuracy(record["text"], record["truth"])


def _chair(_: Sequence[str]) -> list[Part]:
    def tally(some: Sequence[Record]) -> np.ndarray:
        return chair.tally(*_columns(some, "parsed", "truth"))

    return [Part("overall", _everything, tally, chair.rates, "chair_s")]


def _faithful(record: Record) -> float:
    return float(set(record["parsed"]) <= set(record["truth"]))


def _amber(categories: Sequence[str]) -> list[Part]:
    def tally(some: Sequence[Record]) -> np.ndarray:
        return amber.tally(*_columns(some, "truth", "parsed"))

    def told(name: str) -> Part:
        return Part(name, amber.GENERATIVE.__eq__, tally, amber.described, "hal")

    def asked(name: str, kinds: Sequence[str]) -> Part:
        return Part(name, kinds.__contains__, tally, amber.answered, "accuracy")

    kinds = [name for name in categories if name != amber.GENERATIVE]
    dimensions = {name: [kind for kind in kinds if name in amber.DIMENSIONS[kind]] for name in amber.NAMES}
    parts = [asked(name, some) for name, some in {"discriminative": kinds, **dimensions}.items() if some]
    if amber.GENERATIVE in categories:
        parts.insert(0, told("generative"))
    if kinds and amber.GENERATIVE in categories:
        return [Part("overall", _everything, tally, amber.joined, "score"), *parts]
    return [asked("overall", kinds) if kinds else told("overall"), *parts]


def _harmless(record: Record) -> float:
    return float(record["parsed"]["wrong"] == 0) if isinstance(record["parsed"], dict) else _as_parsed(record)


def _columns(records: Sequence[Record], *names: str) -> list[list[Any]]:
    return [[record[name] for record in records] for name in names]


def _mean(right: Callable[[Record], float]) -> Callable[[Sequence[Record]], float]:
    return lambda records: sum(right(record) for record in records) / len(records)


_SCORERS = (
    *(Benchmark(name, _pope, _mean(_as_parsed), parsers=pope.PARSERS) for name in ("pope", "pope-aokvqa", "pope-gqa")),
    Benchmark("mme", _mme, _mean(_as_parsed), parsers={"official": mme.parse_official, **pope.PARSERS}),
    Benchmark("textvqa", _textvqa, _mean(_agreement)),
    Benchmark("chair", _chair, _mean(_faithful), max_new_tokens=64),
    Benchmark("amber", _amber, _mean(_harmless), max_new_tokens=512, parsers=pope.PARSERS),
)
BENCHMARKS = {scorer.name: scorer for scorer in _SCORERS}
"""Data set -> its scorer."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        IavaError: if there is none.
    """
    if name not in BENCHMARKS:
        raise IavaError(f"unknown benchmark {name!r}: use one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
