"""Joins the shards of a run into the folder of the run that one machine would have made."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.evaluation.records import Records, write_json
from iava.evaluation.runs import Run, read_runs
from iava.files import cannot, check_folder
from iava.jsonfiles import read_json
from iava.metrics.parts import Record


def merge(folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Joins finished shards in a new folder, which appears whole or not at all.

    Args:
        folders: of all shards of one run, in any order.
        out: the new folder; may be there if it is empty.

    Returns:
        What its results.json holds; its records are ordered by image and id.

    Raises:
        IavaError: if a shard is missing, unfinished or there twice, they do not belong together, or `out` is in use.
    """
    first, *others = read_runs(folders)
    if others:
        which = _differing(first.settings, others[0].settings)
        raise IavaError(f"{first.folders[0]} and {others[0].folders[0]} do not belong together: {which} differs")
    _check_shards(first)
    methods = _methods(first)
    check_folder(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IavaError(f"{out} is in use: choose a new folder for the merged run")
    place = {name: number for number, name in enumerate(methods)}
    records = sorted(first.records, key=lambda record: (record["image"], record["id"], place[record["method"]]))
    manifest = {**first.manifests[0], "settings": {**first.settings, "shard": None}, "shards": first.manifests}
    results = {"rows": first.rows, "methods": methods, "manifest": manifest}
    _write(out, results, records, first.folders[0] / "tune-records.jsonl")
    return results


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return ", ".join(key for key in {**ours, **theirs} if key != "shard" and ours.get(key) != theirs.get(key))


def _check_shards(run: Run) -> None:
    where: dict[str, Path] = {}
    for folder, manifest in zip(run.folders, run.manifests, strict=True):
        name = manifest["settings"].get("shard")
        if name is None:
            raise IavaError(f"{folder} holds a whole run, no shard of one")
        where[name] = folder
    count = int(next(iter(where)).split("/")[1])
    missing = [name for number in range(1, count + 1) if (name := f"{number}/{count}") not in where]
    if missing:
        raise IavaError(f"shard {', '.join(missing)} is missing: all {count} are needed")


def _methods(run: Run) -> dict[str, Any]:
    """The methods with what was fitted, the same in all shards."""
    found = []
    for folder in run.folders:
        path = folder / "results.json"
        if not path.exists():
            raise IavaError(f"{folder} is not finished: call `iava eval` on it again")
        results = read_json(path)
        if "methods" not in results:
            raise IavaError(f"{path} does not hold the results of a run")
        found.append(results["methods"])
        if found[-1] != found[0]:
            which = _differing(found[0], found[-1])
            raise IavaError(f"{run.folders[0]} and {folder} do not belong together: {which} was fitted otherwise")
    return found[0]


def _write(out: Path, results: dict[str, Any], records: list[Record], tuned: Path) -> None:
    draft = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        Records(draft / "records.jsonl").append(records)
        if tuned.exists():
            shutil.copyfile(tuned, draft / tuned.name)
        write_json(draft / "manifest.json", results["manifest"])
        write_json(draft / "results.json", results)
        draft.replace(out)
    except OSError as error:
        raise cannot("write", out, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
