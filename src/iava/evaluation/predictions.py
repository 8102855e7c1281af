"""Scores files of answers that something else may have produced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iava.benchmarks.benchmark import Benchmark, Predictions
from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.errors import IavaError
from iava.metrics.parts import Record


def score_file(
    name: str, path: Path, *, parser: str | None = None, files: Mapping[str, Path] | None = None
) -> tuple[dict[str, Any], str | None]:
    """Scores a file of predictions, wholly or not at all.

    Args:
        name: of `iava.benchmarks.registry.BENCHMARKS`.
        path: the answers, as the benchmark's `predictions` reads them.
        parser: of closed answers; None: the benchmark's default.
        files: what the benchmark needs beside the answers, such as "instances"; see `Benchmark.score_files`.

    Returns:
        The result of the benchmark's `score`, with "benchmark", and "parser" where there is one. And a remark if
        something is odd, such as empty predictions, which are scored as they are.

    Raises:
        IavaError: if something is missing or given in vain, or a file is broken; with file and line.
    """
    asked, given = benchmark(name), files or {}
    for option in given:
        if option not in asked.score_files:
            owners = ", ".join(other for other in BENCHMARKS if option in benchmark(other).score_files)
            raise IavaError(f"--{option} was given, but {name} has no use for it: it belongs to {owners}")
    chosen = asked.parser_name(parser)
    found = asked.predictions(path, given)
    head = {"benchmark": name} | ({"parser": chosen} if chosen else {})
    blank = [place for place, text in zip(found.places, found.texts, strict=True) if not text.strip()]
    remark = None
    if blank:
        remark = f"{len(blank)} empty prediction{'s' if len(blank) > 1 else ''}, the first at {blank[0]}"
    return head | asked.score(_records(asked, found, chosen)), remark


def _records(asked: Benchmark, found: Predictions, parser: str | None) -> list[Record]:
    return [
        {"id": question.id, "image": question.image, "category": question.category, "question": question.question}
        | {"truth": question.truth, **question.extras, "text": text}
        | {"parsed": asked.read(found.task, question, text, parser)}
        for question, text in zip(found.task.questions, found.texts, strict=True)
    ]
