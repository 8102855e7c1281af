"""The benchmarks by name. Importing this module imports none of them."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from iava.errors import IavaError

if TYPE_CHECKING:
    from iava.benchmarks.benchmark import Benchmark

BENCHMARKS = {
    "pope": "iava.benchmarks.pope:POPE",
    "pope-aokvqa": "iava.benchmarks.pope:POPE",
    "pope-gqa": "iava.benchmarks.pope:POPE",
    "repope": "iava.benchmarks.pope:POPE",
    "mme": "iava.benchmarks.mme:MME",
    "textvqa": "iava.benchmarks.textvqa:TextVQA",
    "chair": "iava.benchmarks.chair:CHAIR",
    "amber": "iava.benchmarks.amber:AMBER",
    "hallusionbench": "iava.benchmarks.hallusionbench:HallusionBench",
    "mmvp": "iava.benchmarks.mmvp:MMVP",
    "dash-b": "iava.benchmarks.dash_b:DASHB",
}
"""Data set, which is also the name of its folder -> module and class of its benchmark."""


def benchmark(name: str, **options: Any) -> Benchmark:
    """The benchmark of a data set.

    Args:
        options: of its class, such as `ocr=True` of TextVQA.

    Raises:
        IavaError: if there is none of this name, or an option belongs to another benchmark.
    """
    if name not in BENCHMARKS:
        raise IavaError(f"unknown benchmark {name!r}: use one of {', '.join(BENCHMARKS)}")
    for option in options:
        if option not in _option_names(name):
            owners = [other for other in BENCHMARKS if option in _option_names(other)]
            raise IavaError(
                f"--{option.replace('_', '-')} was given, but {name} has no use for it: it belongs to "
                f"{', '.join(owners) or 'no benchmark'}"
            )
    return _class(name)(name, **options)


def _class(name: str) -> type[Benchmark]:
    module, _, kind = BENCHMARKS[name].partition(":")
    return getattr(import_module(module), kind)


def _option_names(name: str) -> set[str]:
    return set(signature(_class(name)).parameters) - {"name"}
