"""Published results to be read beside a run: accuracies in percent, and scores of MME in points.

`published.json` holds only numbers that were looked up in the sources it names. It is data: nothing is computed from
it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from iava.benchmarks.registry import benchmark
from iava.benchmarks.sources.pocket import is_scene
from iava.metrics.parts import Record
from iava.metrics.results import Row
from iava.reporting.tables import Cell, Table, TableRow, category_heading, main_metric, metric_cell
from iava.reporting.verdicts import title

_CONTEXT_MODEL = "LLaVA-1.5-7B"


@cache
def _published() -> dict[str, Any]:
    return json.loads((files("iava.reporting") / "published.json").read_text(encoding="utf-8"))


def is_pocket(records: Sequence[Record]) -> bool:
    """Whether a run asked about pocket scenes, for which no paper has results."""
    return bool(records) and is_scene(records[0]["image"])


def published_model(model: str) -> str | None:
    """The name under which papers report results of a model, given its id or folder. None if there are none."""
    names = _published()["models"].items()
    return next((name for name, ids in names if Path(model).name.lower() in ids), None)


def published_table(
    settings: Mapping[str, Any], rows: Sequence[Row], records: Sequence[Record]
) -> tuple[Table, bool] | None:
    """Published results for a run.

    Args:
        settings: the run's settings, with benchmark, model, prompt and parser.
        rows: the run's results.
        records: the run's records.

    Returns:
        The table, and whether its results are of the same model and data set. If they are, the run's own results come
        first. For the pocket model the table holds results of another model on other images, for context. None if
        there are no results of either kind.
    """
    data, model = settings["benchmark"], published_model(settings["model"])
    same = model is not None and not is_pocket(records)
    published = [
        row
        for row in _published()["rows"]
        if row["data"] == data and row["model"] == (model if same else _CONTEXT_MODEL)
    ]
    if not published or not (same or is_pocket(records)):
        return None
    categories = list(dict.fromkeys(category for row in published for category in row["values"]))
    sources = list(dict.fromkeys(row["source"] for row in published))
    methods = list(dict.fromkeys(row["method"] for row in rows)) if same else []
    table_rows = [_measured_row(method, settings, rows, categories) for method in methods]
    table_rows += [_published_row(row, categories, sources.index(row["source"]) + 1) for row in published]
    if same:
        heading = f"Published results of {model} beside this run"
        note = "Scores as published. " if data == "mme" else "Accuracies as published. "
        note += "Image lists differ between papers, and so do prompts and parsers, which docs/papers.md explains. "
    else:
        heading = f"For context only: published results of {published[0]['model']} on COCO"
        note = "Another model and other images: not comparable with the results above. "
    note += " ".join(f"[{number}] {_published()['sources'][name]}." for number, name in enumerate(sources, start=1))
    headings = ["Decoding", "Prompt", "Parser", *map(category_heading, categories), "Source"]
    return Table(heading, headings, table_rows, note), same


def _measured_row(method: str, settings: Mapping[str, Any], rows: Sequence[Row], categories: Sequence[str]) -> TableRow:
    by_category = {row["category"]: row for row in rows if row["method"] == method}
    decoding = "sampled" if next(iter(by_category.values()))["draws"] else "greedy"
    style = settings.get("prompt_style") or benchmark(settings["benchmark"]).style
    system = "system prompt" if settings.get("system_prompt") else None
    prompt = ", ".join(part for part in (style, settings.get("suffix"), system) if part)
    how = [Cell(decoding), Cell(prompt), Cell(settings.get("parser") or "official")]
    cells = [
        metric_cell(by_category[name], main_metric(by_category[name])) if name in by_category else Cell()
        for name in categories
    ]
    return TableRow(title(method), [*how, *cells, Cell()], "this run", highlighted=True)


def _published_row(row: Mapping[str, Any], categories: Sequence[str], source: int) -> TableRow:
    values = row["values"]
    cells = [Cell(str(values[name]), "", values[name]) if name in values else Cell() for name in categories]
    how = [Cell(row[name]) for name in ("decoding", "prompt", "parser")]
    return TableRow(row["method"], [*how, *cells, Cell(f"[{source}]", "", source)])
