"""The benchmarks by name. Importing this module imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from iava.errors import IavaError

if TYPE_CHECKING:
    from iava.benchmarks.benchmark import Benchmark

BENCHMARKS = {
    "pope": "iava.benchmarks.pope:POPE",
    "pope-aokvqa": "iava.benchmarks.pope:POPE",
    "pope-gqa": "iava.benchmarks.pope:POPE",
    "mme": "iava.benchmarks.mme:MME",
    "textvqa": "iava.benchmarks.textvqa:TextVQA",
    "chair": "iava.benchmarks.chair:CHAIR",
    "amber": "iava.benchmarks.amber:AMBER",
}
"""Data set, which is also the name of its folder -> module and class of its benchmark."""


def benchmark(name: str) -> Benchmark:
    """The benchmark of a data set.

    Raises:
        IavaError: if there is none of this name.
    """
    if name not in BENCHMARKS:
        raise IavaError(f"unknown benchmark {name!r}: use one of {', '.join(BENCHMARKS)}")
    module, _, kind = BENCHMARKS[name].partition(":")
    return getattr(import_module(module), kind)(name)
