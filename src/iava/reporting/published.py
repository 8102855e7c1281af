"""What papers report, to be read beside what is measured here. Accuracies in percent; MME's scores in points.

`published.json` holds only numbers that were looked up where its sources say. It is data: nothing is computed from it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from iava.metrics.parts import Record
from iava.metrics.results import Row
from iava.reporting.tables import Cell, Line, Table, estimate, main_metric, named
from iava.reporting.verdicts import title

_POCKET = re.compile(r"(train|tune|test)(-heldout)?-\d{5}")
_CONTEXT_MODEL = "LLaVA-1.5-7B"


@cache
def _published() -> dict[str, Any]:
    return json.loads((files("iava.reporting") / "published.json").read_text(encoding="utf-8"))


def is_pocket(records: Sequence[Record]) -> bool:
    """Whether a run asked about the pocket scenes, whose images no paper knows."""
    return bool(records) and _POCKET.fullmatch(records[0]["image"]) is not None


def published_model(model: str) -> str | None:
    """The name under which papers report about a model; None if they do not, as far as is known here."""
    names = _published()["models"].items()
    return next((name for name, ids in names if Path(model).name.lower() in ids), None)


def beside(settings: Mapping[str, Any], rows: Sequence[Row], records: Sequence[Record]) -> tuple[Table, bool] | None:
    """Published numbers for a run, and whether they are of the same model and data set.

    Where they are, a run's own lines come first. For the pocket model there are only those of another model about other
    pictures, for context. None if there is nothing of either kind.
    """
    benchmark, model = settings["benchmark"], published_model(settings["model"])
    same = model is not None and not is_pocket(records)
    found = [
        row
        for row in _published()["rows"]
        if row["data"] == benchmark and row["model"] == (model if same else _CONTEXT_MODEL)
    ]
    if not found or not (same or is_pocket(records)):
        return None
    categories = list(dict.fromkeys(category for row in found for category in row["values"]))
    sources = list(dict.fromkeys(row["source"] for row in found))
    lines = (
        [_measured(method, rows, categories) for method in dict.fromkeys(row["method"] for row in rows)] if same else []
    )
    lines += [_line(row, categories, sources.index(row["source"]) + 1) for row in found]
    texts = [f"[{number}] {_published()['sources'][source]}." for number, source in enumerate(sources, start=1)]
    kind = "Scores" if benchmark == "mme" else "Accuracies"
    if same:
        heading = f"Published numbers for {model} beside ours"
        note = f"{kind} as published. Prompts, parsers and image lists differ between papers. "
    else:
        heading = f"For context only: {found[0]['model']} on COCO, as published"
        note = "Another model and other pictures: not comparable with any number above. "
    return Table(heading, ["Decoding", *map(named, categories), "Source"], lines, note + " ".join(texts)), same


def _measured(method: str, rows: Sequence[Row], categories: Sequence[str]) -> Line:
    of = {row["category"]: row for row in rows if row["method"] == method}
    cells = [estimate(of[name], main_metric(of[name])) if name in of else Cell() for name in categories]
    return Line(title(method), [Cell(), *cells, Cell()], "measured here", ours=True)


def _line(row: Mapping[str, Any], categories: Sequence[str], source: int) -> Line:
    values = row["values"]
    cells = [Cell(str(values[name]), "", values[name]) if name in values else Cell() for name in categories]
    return Line(row["method"], [Cell(row["decoding"]), *cells, Cell(f"[{source}]", "", source)])
