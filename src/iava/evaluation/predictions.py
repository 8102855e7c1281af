"""Scores files of answers that something else may have produced."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iava.benchmarks.benchmark import Benchmark, Predictions
from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.errors import IavaError
from iava.evaluation.records import check_unique, read_records
from iava.files import reading
from iava.metrics.parts import Record


def score_file(
    name: str,
    path: Path,
    *,
    parser: str | None = None,
    files: Mapping[str, Path] | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Scores a file of predictions, wholly or not at all.

    Args:
        name: of `iava.benchmarks.registry.BENCHMARKS`.
        path: the answers, as the benchmark's `predictions` reads them, or the records of a run.
        parser: of closed answers; None: the benchmark's default.
        files: what the benchmark needs beside the answers, such as "instances"; see `Benchmark.score_files`.
        options: of the benchmark.

    Returns:
        The result of the benchmark's `score`, with "benchmark", and "parser" where there is one; of a run's records
        "methods": method -> result. And a remark if something is odd, such as empty predictions, which are scored as
        they are.

    Raises:
        IavaError: if something is missing or given in vain, or a file is broken; with file and line.
    """
    asked, given = benchmark(name, **(options or {})), files or {}
    for option in given:
        if option not in asked.score_files:
            owners = ", ".join(other for other in BENCHMARKS if option in benchmark(other).score_files)
            raise IavaError(f"--{option} was given, but {name} has no use for it: it belongs to {owners}")
    chosen = asked.parser_name(parser)
    with reading(path):
        if _is_run(path):
            return _score_records(asked, path, chosen), None
        found = asked.predictions(path, given)
    head = {"benchmark": name} | ({"parser": chosen} if chosen else {})
    blank = [place for place, text in zip(found.places, found.texts, strict=True) if not text.strip()]
    remark = None
    if blank:
        remark = f"{len(blank)} empty prediction{'s' if len(blank) > 1 else ''}, the first at {blank[0]}"
    return head | asked.score(_predicted_records(asked, found, chosen)), remark


def _predicted_records(asked: Benchmark, found: Predictions, parser: str | None) -> list[Record]:
    return [
        {"id": question.id, "image": question.image, "category": question.category, "question": question.question}
        | {"truth": question.truth, **question.extras, "text": text}
        | {"parsed": asked.read(found.task, question, text, parser)}
        for question, text in zip(found.task.questions, found.texts, strict=True)
    ]


def _is_run(path: Path) -> bool:
    """Whether a file holds the records of a run."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        first = file.readline(1 << 20)
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and {"id", "method", "text", "truth"} <= set(row)


def _score_records(asked: Benchmark, path: Path, parser: str | None) -> dict[str, Any]:
    records, _ = read_records(path, asked.is_record)
    check_unique(path, records)
    answered = [asked.read_again(record, parser) for record in records if "error" not in record]
    methods = dict.fromkeys(record["method"] for record in answered)
    scores = {name: asked.score([one for one in answered if one["method"] == name]) for name in methods}
    head = {"benchmark": asked.name} | ({"parser": parser} if parser else {})
    return head | {"methods": scores}
