"""Reads what runs left in their folders, and joins the parts of one run.

All numbers are computed from the records. `results.json` is written for readers and never read.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iava.benchmarks.benchmark import Benchmark
from iava.benchmarks.registry import benchmark
from iava.benchmarks.task import Task
from iava.errors import IavaError
from iava.evaluation.bias import bias_of
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, check_unique, read_records, write_json
from iava.files import cannot, check_folder, reading
from iava.jsonfiles import read_json
from iava.metrics.parts import Record
from iava.metrics.results import Row, rows_of

_OF_A_SHARD = ("shard",)
"""Settings in which the parts of one run differ."""
_TEXT_FIELDS = ("benchmark", "split", "model")
_SPOKEN = ("command", "prompt", "git", "started", "data")
_MACHINE = ("processor", "threads", "device", "dtype")


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
        """The settings that all parts share."""
        return self.manifests[0]["settings"]

    @property
    def name(self) -> str:
        """Benchmark and split, and that tokens are drawn, if every method draws them."""
        drawn = self.rows and all(row["draws"] for row in self.rows)
        return f"{self.settings['benchmark']} · {self.settings['split']}" + (" · sampling" if drawn else "")

    def of(self, method: str, category: str = "overall") -> list[Record]:
        """A method's answered questions, in an order that does not depend on how the run was divided."""
        chosen = [
            record
            for record in self.records
            if record["method"] == method and category in ("overall", record["category"]) and "error" not in record
        ]
        return sorted(chosen, key=lambda record: (record["image"], record["id"]))


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders, in their order. Folders with equal settings are parts of one run.

    Raises:
        IavaError: if a folder is named twice or holds no answers, a file is broken, or two parts answer the same.
    """
    divided: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    places: set[Path] = set()
    for folder in folders:
        manifest = read_manifest(folder)
        places.add(folder.resolve())
        whole = {key: value for key, value in manifest["settings"].items() if key not in _OF_A_SHARD}
        divided.setdefault(json.dumps(whole, sort_keys=True), []).append((folder, manifest))
    if len(places) < len(folders):
        raise IavaError("a folder is named twice: name each once")
    return [_join_folders(parts) for parts in divided.values()]


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of runs. The folder of a sweep stands for those of its runs."""
    return [run for folder in folders for run in _runs_in(folder)]


def _runs_in(folder: Path) -> list[Path]:
    inside = sorted(manifest.parent for manifest in folder.glob("*/manifest.json"))
    return [folder] if (folder / "manifest.json").exists() or not inside else inside


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        IavaError: if there is none, or it is broken.
    """
    path = folder / "manifest.json"
    with reading(path):
        if not path.is_file():
            raise IavaError(f"{folder} holds no run (there is no {path}): name a folder that `iava eval` wrote")
    manifest = read_json(path)
    if not _is_manifest(manifest):
        raise IavaError(f"{path} is no manifest of a run: name a folder that `iava eval` wrote")
    return manifest


def _is_manifest(manifest: Any) -> bool:
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    if not isinstance(settings, dict):
        return False
    methods, machine = settings.get("methods"), manifest.get("machine", {})
    return (
        all(isinstance(manifest.get(key), str | None) for key in _SPOKEN)
        and all(isinstance(settings.get(key), str) for key in _TEXT_FIELDS)
        and isinstance(settings.get("seed"), int)
        and settings["seed"] >= 0
        and isinstance(methods, dict)
        and all(isinstance(one, dict) for one in methods.values())
        and all(isinstance(settings.get(key), str | None) for key in ("parser", "prompt_style", "suffix", "questions"))
        and "\0" not in (manifest.get("data") or "")
        and isinstance(manifest.get("versions", {}), dict)
        and isinstance(machine, dict)
        and (not machine or set(_MACHINE) <= set(machine))
    )


def _join_folders(parts: Sequence[tuple[Path, dict[str, Any]]]) -> Run:
    settings = parts[0][1]["settings"]
    asked = benchmark(settings["benchmark"])
    records: list[Record] = []
    whose: dict[tuple[str, str], Path] = {}
    for folder, _ in parts:
        for record in _folder_records(folder, asked):
            key = (record["id"], record["method"])
            if key in whose:
                raise IavaError(f"{whose[key]} and {folder} both hold {key[1]}'s answer to {key[0]}: name one of them")
            whose[key] = folder
            records.append(record)
    folders, manifests = [folder for folder, _ in parts], [manifest for _, manifest in parts]
    methods = methods_of(folders[0], settings)
    return Run(folders, manifests, records, rows_of(records, benchmark=asked, settings=methods, seed=settings["seed"]))


def _folder_records(folder: Path, asked: Benchmark) -> list[Record]:
    path = folder / "records.jsonl"
    records, _ = read_records(path, asked.is_record) if path.is_file() else ([], 0)
    if not records:
        raise IavaError(f"{folder} holds no answers yet: let `iava eval` go on there")
    check_unique(path, records)
    return records


def methods_of(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The methods of a run with their settings. A bias that was fitted is computed again from its records.

    Raises:
        IavaError: if those records are broken.
    """
    methods = dict(settings["methods"])
    target = methods.get("bias", {}).get("yes_ratio_of")
    path = folder / "tune-records.jsonl"
    if isinstance(target, str) and path.is_file():
        records, _ = read_records(path, benchmark(settings["benchmark"]).is_record)
        bias = bias_of([record for record in records if record["truth"] in ("yes", "no")], target)
        methods["bias"] = ({} if bias is None else {"bias": bias}) | methods["bias"]
    return methods


def write_run(out: Path, results: dict[str, Any], records: list[Record], tuned: Path) -> None:
    """Writes the folder of a run that was made from others. It appears whole or not at all.

    Args:
        out: the new folder. It may exist if it is empty.
        results: for results.json, with the manifest.
        records: of the run.
        tuned: the file of records that a constant bias was fitted to, if it exists.

    Raises:
        IavaError: if the folder is in use or cannot be written.
    """
    check_folder(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IavaError(f"{out} is in use: choose a new folder for the run")
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


def questions_of(run: Run) -> Task | None:
    """The questions of a run, with their images; None if they are not where the run found them any more.

    Raises:
        IavaError: if they cannot be read.
    """
    settings, data = run.settings, run.manifests[0].get("data")
    if data is None:
        return None
    plan = Plan(
        settings["model"],
        {"greedy": {}},
        settings["split"],
        benchmark=settings["benchmark"],
        data=None if data == "pocket" else Path(data),
        prompt_style=settings.get("prompt_style"),
        suffix=settings.get("suffix"),
    )
    return plan.questions if plan.questions.digest == settings.get("questions") else None
