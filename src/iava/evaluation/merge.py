"""Joins the shards of a run into the folder of the run that one machine would have made."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.evaluation.runs import Run, methods_of, read_runs, write_run


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Joins finished shards in a new folder, which appears whole or not at all.

    Args:
        folders: of all shards of one run, in any order.
        out: the new folder. It may exist if it is empty.

    Returns:
        The content of its results.json. Its records are ordered by image and id.

    Raises:
        IavaError: if a shard is missing, unfinished or given twice, they do not belong together, or `out` is in use.
    """
    first, *others = read_runs(folders)
    if others:
        which = _differing(first.settings, others[0].settings)
        raise IavaError(f"{first.folders[0]} and {others[0].folders[0]} do not belong together: {which} differs")
    _check_shards(first)
    methods = _methods(first)
    place = {name: number for number, name in enumerate(methods)}
    unknown = next((record["method"] for record in first.records if record["method"] not in place), None)
    if unknown is not None:
        raise IavaError(f"{first.folders[0]} holds answers of {unknown}, which is not among the run's methods")
    records = sorted(first.records, key=lambda record: (record["image"], record["id"], place[record["method"]]))
    manifest = {**first.manifests[0], "settings": {**first.settings, "shard": None}, "shards": first.manifests}
    results = {"rows": first.rows, "methods": methods, "manifest": manifest}
    write_run(out, results, records, first.folders[0] / "tune-records.jsonl")
    return results


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return ", ".join(key for key in {**ours, **theirs} if key != "shard" and ours.get(key) != theirs.get(key))


def _check_shards(run: Run) -> None:
    where: dict[str, Path] = {}
    for folder, manifest in zip(run.folders, run.manifests, strict=True):
        name = manifest["settings"].get("shard")
        if name is None:
            raise IavaError(f"{folder} holds a whole run, no shard of one")
        if not isinstance(name, str) or not re.fullmatch(r"[1-9]\d{0,8}/[1-9]\d{0,8}", name):
            raise IavaError(f"{folder} is no shard of a run: its manifest says {name!r}")
        where[name] = folder
    count = max(int(name.split("/")[1]) for name in where)
    missing = (name for number in range(1, count + 1) if (name := f"{number}/{count}") not in where)
    first = list(islice(missing, 5))
    if first:
        more = ", ..." if count - len(where) > len(first) else ""
        raise IavaError(f"shard {', '.join(first)}{more} is missing: all {count} are needed")


def _methods(run: Run) -> dict[str, Any]:
    """The methods with what was fitted, the same in all shards."""
    found = []
    for folder in run.folders:
        if not (folder / "results.json").exists():
            raise IavaError(f"{folder} is not finished: call `iava eval` on it again")
        found.append(methods_of(folder, run.settings))
        if found[-1] != found[0]:
            which = _differing(found[0], found[-1])
            raise IavaError(f"{run.folders[0]} and {folder} do not belong together: {which} was fitted otherwise")
    return found[0]
