"""Module paths of the previous version: they import with a DeprecationWarning, for one version."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NEW_HOMES = {
    "benchmarks": "amber chair mme pope task textvqa scoring=registry",
    "benchmarks.sources": "coco hub layouts=files pocket pocket_files data=find",
    "cost": "cost=bench cost_report=report peers=baselines shapes",
    "evaluation": "merge predictions ray_engine records reproduce runner runs sweep tune",
    "metrics": "flips memory results shift stats",
    "reporting": "charts plots published report section=sections shown=formatting tables typeset=renderers",
    "studies": "ablate",
}
"""Package -> modules that were in `iava.bench`, with their new name where it changed."""
_STUDIES = ("auto", "centred", "compare", "negatives", "regions", "variants", "wording")
MOVED = {
    "iava.answers": "iava.lvlm.answers",
    "iava.boxes": "iava.lvlm.boxes",
    "iava.explain.overlay": "iava.reporting.overlay",
    "iava.explain.words": "iava.reporting.differences",
    "iava.images": "iava.lvlm.images",
    "iava.inputs": "iava.lvlm.inputs",
    "iava.lmms_eval": "iava.integrations.lmms_eval",
    "iava.loading": "iava.lvlm.loading",
    "iava.bench.words": "iava.words",
    **{f"iava.bench.study.{name}": f"iava.studies.{name}" for name in _STUDIES},
    **{
        f"iava.bench.{old}": f"iava.{package}.{new or old}"
        for package, modules in _NEW_HOMES.items()
        for old, _, new in (module.partition("=") for module in modules.split())
    },
}
"""Old module path -> new one."""


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = name in ("iava.bench", "iava.bench.study")
        return ModuleSpec(name, self, is_package=package) if package or name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        if old in MOVED:
            warn_of_alias(old, MOVED[old])
            sys.modules[old] = import_module(MOVED[old])


def install() -> None:
    """Makes the old module paths importable."""
    sys.meta_path.append(_Finder())


def moved_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` for names that moved.

    Args:
        module: the old module.
        names: name -> "new.module:Name".
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        warn_of_alias(f"{module}.{name}", f"{home}.{new}")
        return getattr(import_module(home), new)

    return find


def warn_of_alias(old: str, new: str) -> None:
    """Warns the caller's caller that it uses an old name."""
    warnings.warn(f"{old} is now {new}; the next version removes the old name", DeprecationWarning, stacklevel=3)
