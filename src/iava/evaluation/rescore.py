"""Reads the answers of a finished run again with another parser, without asking the model."""

from pathlib import Path
from typing import Any

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.runs import methods_of, read_runs, write_run
from iava.metrics.results import rows_of


def rescore(folder: Path, parser: str, out: Path | None = None) -> dict[str, Any]:
    """Reads the answers of a run again.

    A constant bias stays the one that the run was made with, although the parser has a part in fitting it.

    Args:
        folder: of the run.
        parser: of the benchmark's parsers.
        out: a new folder for the run with the answers as they are read now; None: nothing is written.

    Returns:
        "rows" (see `iava.metrics.results.rows_of`), "methods" with their settings, and "manifest".

    Raises:
        IavaError: if the folder holds no run, its benchmark has no such parser, or `out` is in use.
    """
    [run] = read_runs([folder])
    asked = benchmark(run.settings["benchmark"])
    if not asked.parsers:
        raise IavaError(f"{folder} holds answers to {asked.name}, which no parser reads")
    name = asked.parser_name(parser)
    records = [asked.read_again(record, name) for record in run.records]
    methods = methods_of(folder, run.settings)
    old, settings = run.manifests[0], {**run.settings, "parser": name}
    manifest = {**old, "settings": settings, "rescored_from": run.settings.get("parser")}
    rows = rows_of(records, benchmark=asked, settings=methods, seed=settings["seed"])
    results = {"rows": rows, "methods": methods, "manifest": manifest}
    if out is not None:
        write_run(out, results, records, folder / "tune-records.jsonl")
    return results
