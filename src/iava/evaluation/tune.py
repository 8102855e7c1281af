"""Chooses a method's settings on a split for tuning, with the same budget for every method.

Each candidate is a run of its own (`iava.evaluation.sweep`).
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.records import write_json
from iava.evaluation.runner import Advance
from iava.evaluation.sweep import sweep
from iava.lvlm.model import LVLM
from iava.methods.registry import check_settings, resolve

MAXIMISED = ("accuracy", "auc", "f1")
SPLITS = ("tune", "tune-heldout")
BUDGET = 12
"""Candidates for each method, its defaults among them."""

Grid = dict[str, list[Any]]
_CONTRAST: Grid = {"alpha": [0.25, 0.5, 1.0, 2.0], "beta": [0.0, 0.1, 0.5]}
_IAVA: Grid = {
    "alpha": [0.25, 0.5, 1.0, 2.0],
    "top_i": [0.05, 0.2, 0.5],
    "lam": [-0.5, 0.0, 0.5],
    "negative": ["zeros", "drop"],
}
GRIDS: dict[str, Grid] = {
    "sample": {"temperature": [0.25, 0.5, 1.0, 1.5], "top_p": [0.5, 0.9, 1.0]},
    "apc": {"beta": [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]},
    "bias": {"bias": [-2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5]},
    "iava": _IAVA,
    "iava+": {"alpha": [0.125, 0.25, 0.375, 0.5], "top_i": [0.2, 0.5, 1.0]},
    "iava-random": _IAVA,
    "iava-relevant": _IAVA,
    "noise": _IAVA,
    "no-image": _CONTRAST,
    "oracle": _CONTRAST,
    "vcd": {"alpha": [0.25, 0.5, 1.0, 2.0], "step": [300, 500, 700, 900]},
    "icd": _CONTRAST,
    "m3id": {"decay": [0.005, 0.02, 0.1, 0.3], "threshold": [0.1, 0.3, 0.6, 0.9]},
    "avisc": {"alpha": [0.5, 1.0, 2.0, 3.0], "gamma": [0.3, 0.5, 0.7], "lam": [0.5, 1.0, 1.5]},
    "pai": {"alpha": [0.0, 0.1, 0.2, 0.5], "gamma": [1.05, 1.1, 1.3, 1.5]},
    "sid": {"alpha": [0.25, 0.5, 1.0, 2.0], "keep": [0.05, 0.1, 0.2, 0.4]},
    "only": {"alpha1": [1.0, 3.0, 5.0], "alpha2": [0.5, 1.0, 2.0], "gamma": [0.1, 0.2, 0.4]},
}
"""Method -> setting -> values. Of a grid larger than the budget a random part is tried."""


@dataclass(frozen=True)
class SearchSpace:
    """The candidates of a search, and its objective.

    Args:
        model: the name under which the model was loaded.
        method: command-line name.
        grid: setting -> values; empty: the method's own of `GRIDS`.
        split: "tune" or "tune-heldout".
        limit: the first so many images; None: all.
        maximise: "accuracy", "auc" or "f1", over all questions.
        budget: how many settings are tried at most.
        seed: of methods that draw tokens, and of which part of a grid is tried.

    Raises:
        IavaError: if something is out of range or unknown.
    """

    model: str
    method: str
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    split: str = "tune"
    limit: int | None = None
    maximise: str = "accuracy"
    budget: int = BUDGET
    seed: int = 42

    def __post_init__(self) -> None:
        check_settings(self.method)
        if self.split not in SPLITS:
            raise IavaError(
                f"split is {self.split!r}: settings are chosen on one of {', '.join(SPLITS)}, and reported on another"
            )
        if self.maximise not in MAXIMISED:
            raise IavaError(f"maximise is {self.maximise!r}: it must be one of {', '.join(MAXIMISED)}")
        for name, value in (("budget", self.budget), ("limit", self.limit)):
            if value is not None and value < 1:
                raise IavaError(f"{name} is {value}: it must be at least 1")
        if not self.grid and self.method not in GRIDS:
            known = resolve(self.method)().settings()
            wanted = f"give --grid with some of {', '.join(known)}" if known else "it has no settings"
            raise IavaError(f"there is no grid for {self.method}: {wanted}")

    def settings(self) -> list[dict[str, Any]]:
        """The candidates: the method's defaults, then the grid in its order. Each is complete and occurs once.

        Raises:
            IavaError: if a setting is unknown or a value out of range.
        """
        grid = self.grid or GRIDS[self.method]
        made = resolve(self.method)
        whole = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        tried: list[dict[str, Any]] = [made().settings()]
        for settings in (made(**chosen).settings() for chosen in whole):
            if settings not in tried:
                tried.append(settings)
        numbers = range(1, len(tried))
        kept = random.Random(self.seed).sample(numbers, min(self.budget - 1, len(numbers)))
        return [tried[0], *(tried[number] for number in sorted(kept))]


def tune(lvlm: LVLM, space: SearchSpace, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures every candidate, or the rest of them, and writes `folder`/tune.json.

    Returns:
        The content of the file: "method", "maximise", "split", "limit", "best" (settings; of equal ones the first),
        "tried" (of each candidate settings, metrics as fractions of 1, intervals and folder), and "manifest" of the
        first run.

    Raises:
        IavaError: if the folder cannot be used.
    """
    candidates = space.settings()
    plan = Plan(space.model, {space.method: candidates[0]}, space.split, space.limit, space.seed)
    runs = sweep(lvlm, plan, space.method, candidates, folder, advance)
    tried: list[dict[str, Any]] = [
        {"settings": run.settings, "folder": run.folder.name}
        | {key: run.overall[key] for key in ("metrics", "intervals")}
        for run in runs
    ]
    best = max(tried, key=lambda one: one["metrics"][space.maximise] or 0.0)
    found = {
        "method": space.method,
        "maximise": space.maximise,
        "split": space.split,
        "limit": space.limit,
        "best": best["settings"],
        "tried": tried,
        "manifest": runs[0].results["manifest"],
    }
    write_json(folder / "tune.json", found)
    return found


def read_tuned(paths: Sequence[Path], names: Sequence[str], split: str) -> dict[str, Any]:
    """The best settings in tune.json files, as method.setting -> value.

    Args:
        paths: of the files.
        names: the methods that will be measured.
        split: the split that they will be measured on.

    Raises:
        IavaError: if a file cannot be read, is about another method, or was tuned on the split.
    """
    found: dict[str, Any] = {}
    for path in paths:
        try:
            tuned = json.loads(path.read_text(encoding="utf-8"))
            method, tuned_on, best = tuned["method"], tuned["split"], dict(tuned["best"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise IavaError(f"{path} is no tune.json of `iava tune`") from None
        if method not in names:
            raise IavaError(f"{path} is about {method}, which is not among the methods: {', '.join(names)}")
        if tuned_on == split:
            raise IavaError(f"{path} was tuned on {split}: report on another split")
        found |= {f"{method}.{setting}": value for setting, value in best.items()}
    return found
