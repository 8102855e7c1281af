"""Reading what runs left in their folders; parts of one run become one again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.records import read_records
from iava.jsonfiles import read_json
from iava.metrics.parts import Record
from iava.metrics.results import Row, rows_of

_OF_A_SHARD = ("shard",)
"""Settings in which the parts of one run differ."""
_KEYS = ("id", "image", "split", "category", "method", "question")


@dataclass(frozen=True)
class Run:
    """A run, whole or as far as it got.

    Args:
        folders: where it lies; several if it was divided.
        manifests: of each folder.
        records: of all folders, errors included.
        rows: see `iava.metrics.results.rows_of`.
    """

    folders: list[Path]
    manifests: list[dict[str, Any]]
    records: list[Record]
    rows: list[Row]

    @property
    def settings(self) -> dict[str, Any]:
        return self.manifests[0]["settings"]

    @property
    def name(self) -> str:
        return f"{self.settings['benchmark']} · {self.settings['split']}"

    def of(self, method: str, category: str = "overall") -> list[Record]:
        """A method's answered questions, in an order that does not depend on how the run was divided."""
        chosen = [
            record
            for record in self.records
            if record["method"] == method and category in ("overall", record["category"]) and "error" not in record
        ]
        return sorted(chosen, key=lambda record: (record["image"], record["id"]))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, in their order; those with equal settings are parts of one.

    Raises:
        IavaError: if a folder is named twice or holds no answers, a file is broken, or two parts answer the same.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise IavaError("a folder is named twice: name each once")
    divided: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder in folders:
        manifest = _manifest(folder)
        whole = {key: value for key, value in manifest["settings"].items() if key not in _OF_A_SHARD}
        divided.setdefault(json.dumps(whole, sort_keys=True), []).append((folder, manifest))
    return [_joined(parts) for parts in divided.values()]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise IavaError(f"{folder} holds no run (there is no {path}): name a folder that `iava eval` wrote")
    manifest = read_json(path)
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    wanted = ("benchmark", "split", "model", "methods", "seed")
    if not isinstance(settings, dict) or any(key not in settings for key in wanted):
        raise IavaError(f"{path} is no manifest of a run: name a folder that `iava eval` wrote")
    return manifest


def _joined(parts: Sequence[tuple[Path, dict[str, Any]]]) -> Run:
    records: list[Record] = []
    whose: dict[tuple[str, str], Path] = {}
    for folder, _ in parts:
        for record in _records(folder):
            key = (record["id"], record["method"])
            if key in whose:
                raise IavaError(f"{whose[key]} and {folder} both hold {key[1]}'s answer to {key[0]}: name one of them")
            whose[key] = folder
            records.append(record)
    folders, manifests = [folder for folder, _ in parts], [manifest for _, manifest in parts]
    return Run(folders, manifests, records, _rows(folders, manifests[0]["settings"], records))


def _records(folder: Path) -> list[Record]:
    path = folder / "records.jsonl"
    records, _ = read_records(path) if path.is_file() else ([], 0)
    if not records:
        raise IavaError(f"{folder} holds no answers yet: let `iava eval` go on there")
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or any(not isinstance(record.get(key), str) for key in _KEYS):
            raise IavaError(f"{path}, line {number}, is no record: it must have {', '.join(_KEYS)}")
    return records


def _rows(folders: Sequence[Path], settings: Mapping[str, Any], records: Sequence[Record]) -> list[Row]:
    """As `iava eval` left them, or computed where there is more than one part, or the run was stopped."""
    path = folders[0] / "results.json"
    written: list[Row] = []
    if path.is_file():
        results = read_json(path)
        if not isinstance(results, dict) or not isinstance(results.get("rows"), list):
            raise IavaError(f"{path} has no rows: delete it and call `iava eval` on {folders[0]} again")
        written = results["rows"]
    if written and len(folders) == 1:
        return written
    # What was fitted stands in the rows only.
    described = dict(settings["methods"]) | {row["method"]: row["settings"] for row in written}
    return rows_of(records, benchmark=benchmark(settings["benchmark"]), settings=described, seed=settings["seed"])
