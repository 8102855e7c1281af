"""Measures methods on captions over their whole range of strength: the runs that `iava frontier` reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.evaluation.sweep import Trial, sweep
from iava.lvlm.model import LVLM
from iava.methods.registry import check_settings, resolve

StrengthGrid = Mapping[str, Sequence[Any]]
"""A setting's name -> its values."""

_ALPHA: StrengthGrid = {"alpha": [0.25, 0.5, 1.0, 2.0, 4.0]}
STRENGTHS: dict[str, StrengthGrid] = {
    "greedy": {},
    "sample": {"temperature": [0.25, 0.5, 0.75, 1.0, 1.25]},
    "apc": {"beta": [0.01, 0.05, 0.1, 0.3, 0.6]},
    "end-bias": {"bias": [-4.0, -2.0, 1.0, 2.0, 3.0, 4.0, 6.0]},
    "token-limit": {"tokens": [8, 16, 32, 64, 128]},
    "brief": {},
    "verify": {"threshold": [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0]},
    "best-of": {"n": [2, 3, 4, 8]},
    "iava": _ALPHA,
    "iava+": {"alpha": [0.125, 0.25, 0.5, 1.0, 2.0]},
    "vcd": _ALPHA,
    "icd": _ALPHA,
    "m3id": {"decay": [0.005, 0.02, 0.05, 0.1, 0.3]},
    "avisc": _ALPHA,
    "pai": {"gamma": [1.05, 1.1, 1.3, 1.6, 2.0]},
    "sid": _ALPHA,
    "only": {"alpha1": [0.5, 1.0, 3.0, 5.0]},
    "iava-random": _ALPHA,
    "iava-relevant": _ALPHA,
    "no-image": _ALPHA,
    "restore": {},
    "noise": _ALPHA,
}
"""Method -> the setting that is its strength on captions, with its values. Without a setting it is measured once."""


def candidates(method: str, fixed: Mapping[str, Any], grid: StrengthGrid | None = None) -> list[dict[str, Any]]:
    """The settings under which a method is measured, each complete.

    Args:
        method: command-line name.
        fixed: settings that stay as they are.
        grid: one setting with its values; None: that of `STRENGTHS`.

    Raises:
        IavaError: if the method has no grid, the grid has more than one setting, or a value is out of range.
    """
    if grid is None and method not in STRENGTHS:
        raise IavaError(f"the strength of {method} is unknown: give --grid {method}.SETTING=V1,V2")
    grid = STRENGTHS[method] if grid is None else grid
    if len(grid) > 1:
        raise IavaError(f"the grid of {method} varies {', '.join(grid)}: a sweep varies one setting, the strength")
    check_settings(method, grid)
    make = resolve(method)
    varied: list[dict[str, Any]] = [{name: value} for name, values in grid.items() for value in values] or [{}]
    return [make(**{**fixed, **one}).settings() for one in varied]


def sweep_strengths(
    lvlm: LVLM,
    plan: Plan,
    grids: Mapping[str, StrengthGrid],
    folder: Path,
    advance: Advance = lambda *_: None,
) -> list[Trial]:
    """Measures every method of a plan under each of its candidates. A stopped sweep continues.

    Args:
        plan: its methods with the settings that stay fixed.
        grids: of methods that do not take that of `STRENGTHS`.
        folder: gets a run's folder for each candidate.

    Raises:
        IavaError: see `candidates` and `iava.evaluation.runner.evaluate`.
    """
    asked = {name: candidates(name, fixed, grids.get(name)) for name, fixed in plan.methods.items()}
    return [trial for name, some in asked.items() for trial in sweep(lvlm, plan, name, some, folder, advance)]
