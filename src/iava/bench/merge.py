"""Joins the shards of a run into the run that one machine would have made."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iava.bench.records import Record, Records, write_json
from iava.bench.results import rows_of
from iava.files import cannot, check_folder
from iava.jsonfiles import read_json


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Joins finished shards in a new folder, which appears whole or not at all.

    Args:
        folders: of all shards of one run, in any order.
        out: the new folder; may be there if it is empty.

    Returns:
        What its results.json holds; its records are ordered by image and id.

    Raises:
        ValueError: if a shard is missing, unfinished or there twice, they do not belong together, or `out` is in use.
    """
    results = {folder: _results(folder) for folder in folders}
    _check_shards(results)
    check_folder(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is in use: choose a new folder for the merged run")
    first = next(iter(results.values()))
    manifests = [result["manifest"] for result in results.values()]
    settings, methods = {**first["manifest"]["settings"], "shard": None}, first["methods"]
    records = [record for folder in results for record in Records(folder / "records.jsonl").rows]
    place = {name: number for number, name in enumerate(methods)}
    records.sort(key=lambda record: (record["image"], record["id"], place[record["method"]]))
    merged = {
        "rows": rows_of(records, benchmark=settings["benchmark"], settings=methods, seed=settings["seed"]),
        "methods": methods,
        "manifest": {**manifests[0], "settings": settings, "shards": manifests},
    }
    _write(out, merged, records, next(iter(results)) / "tune-records.jsonl")
    return merged


def _write(out: Path, merged: dict[str, Any], records: list[Record], tuned: Path) -> None:
    draft = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        Records(draft / "records.jsonl").append(records)
        if tuned.exists():
            shutil.copyfile(tuned, draft / tuned.name)
        write_json(draft / "manifest.json", merged["manifest"])
        write_json(draft / "results.json", merged)
        draft.replace(out)
    except OSError as error:
        raise cannot("write", out, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no finished run: there is no {path.name} in it")
    results = read_json(path)
    if not isinstance(results, dict) or "methods" not in results or "manifest" not in results:
        raise ValueError(f"{path} does not hold the results of a run")
    if results["manifest"]["settings"]["shard"] is None:
        raise ValueError(f"{folder} holds a whole run, no shard of one")
    return results


def _check_shards(results: dict[Path, dict[str, Any]]) -> None:
    (first, one), *others = results.items()
    for folder, other in others:
        for ours, theirs in ((_settings(one), _settings(other)), (one["methods"], other["methods"])):
            if ours != theirs:
                which = ", ".join(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
                raise ValueError(f"{first} and {folder} do not belong together: they differ in {which}")
    where: dict[str, Path] = {}
    for folder, result in results.items():
        name = result["manifest"]["settings"]["shard"]
        if name in where:
            raise ValueError(f"{where[name]} and {folder} are both shard {name}: name one of them")
        where[name] = folder
    count = int(next(iter(where)).split("/")[1])
    missing = [name for number in range(1, count + 1) if (name := f"{number}/{count}") not in where]
    if missing:
        raise ValueError(f"shard {', '.join(missing)} is missing: all {count} are needed")


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in all shards of a run."""
    return {**result["manifest"]["settings"], "shard": None}
