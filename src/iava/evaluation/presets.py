"""What the authors' commands set: each method's settings, prompt endings, system prompts, token limits and parsers.

`docs/papers.md` has these commands. A method without a row keeps its defaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iava.errors import IavaError

PRESETS = ("published",)

LLAVA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
"""The system prompt of LLaVA-1.5's `llava_v1` template."""
PAI_SYSTEM = LLAVA_SYSTEM.replace("human", "user")
"""The system prompt of PAI's scripts."""
POPE_BENCHMARKS = ("pope", "pope-aokvqa", "pope-gqa", "repope")


@dataclass(frozen=True)
class Preset:
    """What a run takes over. None: no script fixes it.

    Args:
        settings: method -> setting -> value.
        prompt_style: of `iava.benchmarks.benchmark.PROMPT_STYLES`.
        system_prompt: "" for none.
        max_new_tokens: the most tokens of an answer.
        parser: of closed answers.
    """

    settings: Mapping[str, Mapping[str, Any]]
    prompt_style: str | None = None
    system_prompt: str | None = None
    max_new_tokens: int | None = None
    parser: str | None = None


RUN = ("prompt_style", "system_prompt", "max_new_tokens", "parser")
"""The fields of `Preset` that hold for a whole run."""


@dataclass(frozen=True)
class _Row:
    """What one command sets.

    Args:
        method: command-line name.
        settings: of the method.
        families: model types; none: any.
        benchmarks: data sets; none: any.
        run: values of `RUN`.
    """

    method: str
    settings: Mapping[str, Any]
    families: Sequence[str] = ()
    benchmarks: Sequence[str] = ()
    run: Mapping[str, Any] = field(default_factory=dict)

    def applies(self, family: str, benchmark: str) -> bool:
        in_family = not self.families or family in self.families
        return in_family and (not self.benchmarks or benchmark in self.benchmarks)


LLAVA = ("llava",)
LIKE_LLAVA = ("llava", "pocket")
"""Families with a system prompt, and the same with the pocket model, which has none."""
INSTRUCTBLIP = ("instructblip",)
_LLAVA_PROMPT = {"system_prompt": LLAVA_SYSTEM}
_VCD = {"prompt_style": "vcd", "parser": "vcd"}
_PLAIN_STYLE = {"prompt_style": "plain"}
_OPERA = _PLAIN_STYLE | {"parser": "opera"}
_POPE = _PLAIN_STYLE | {"parser": "pope"}

ROWS = (
    _Row("vcd", {"alpha": 1.0, "beta": 0.1, "step": 500, "noise_per": "question", "sampling": True}),
    _Row("vcd", {"beta": 0.2}, LIKE_LLAVA, POPE_BENCHMARKS, _VCD | {"max_new_tokens": 1024}),
    _Row("vcd", {}, LLAVA, POPE_BENCHMARKS, _LLAVA_PROMPT),
    _Row("vcd", {"alpha": 0.5}, INSTRUCTBLIP, POPE_BENCHMARKS, _VCD | {"max_new_tokens": 256}),
    _Row("icd", {"alpha": 1.0, "beta": 0.1, "sampling": True}),
    _Row("icd", {"place": "system"}, LLAVA),
    _Row("icd", {"place": "qformer-alone"}, INSTRUCTBLIP),
    _Row("icd", {}, LIKE_LLAVA, POPE_BENCHMARKS, _POPE | {"max_new_tokens": 1024}),
    _Row("icd", {}, LLAVA, POPE_BENCHMARKS, _LLAVA_PROMPT),
    _Row("icd", {}, INSTRUCTBLIP, POPE_BENCHMARKS, _POPE | {"max_new_tokens": 256}),
    _Row("m3id", {"decay": 0.02, "threshold": 0.3, "offset": 0, "beta": 0.0, "sampling": True}),
    _Row("m3id", {"offset": 10}, (), POPE_BENCHMARKS),
    _Row("avisc", {"gamma": 0.5, "lam": 1.0, "beta": 0.1, "sampling": True}),
    _Row("avisc", {}, (), POPE_BENCHMARKS, _OPERA | {"max_new_tokens": 64}),
    _Row("avisc", {}, (), ("mme", "amber"), _PLAIN_STYLE | {"max_new_tokens": 64}),
    _Row("avisc", {}, LLAVA, (*POPE_BENCHMARKS, "mme", "amber"), _LLAVA_PROMPT),
    _Row("pai", {"alpha": 0.2, "gamma": 1.1, "start": 2, "beta": 0.1, "prefill": False}),
    _Row("pai", {}, LIKE_LLAVA, POPE_BENCHMARKS, _OPERA | {"max_new_tokens": 512}),
    _Row("pai", {}, LIKE_LLAVA, ("chair",), {"prompt_style": "pai", "max_new_tokens": 512}),
    _Row("pai", {}, LLAVA, (*POPE_BENCHMARKS, "chair"), {"system_prompt": PAI_SYSTEM}),
    _Row("sid", {"early": 2, "keep": 100, "alpha": 0.5, "beta": 0.0}, LIKE_LLAVA),
    _Row("sid", {}, LIKE_LLAVA, POPE_BENCHMARKS, _OPERA | {"max_new_tokens": 10}),
    _Row("sid", {"keep": 50}, LIKE_LLAVA, ("chair",), _PLAIN_STYLE | {"max_new_tokens": 512}),
    _Row("sid", {}, LLAVA, (*POPE_BENCHMARKS, "chair"), {"system_prompt": ""}),
    _Row("only", {"layer": 0, "gamma": 0.2, "alpha1": 3.0, "alpha2": 1.0, "beta": 0.1, "sampling": True}),
    _Row("only", {}, LIKE_LLAVA, POPE_BENCHMARKS, _OPERA | {"max_new_tokens": 8}),
    _Row("only", {}, INSTRUCTBLIP, POPE_BENCHMARKS, _OPERA | {"max_new_tokens": 4}),
    _Row("only", {"gamma": 0.25}, (), ("chair",), _PLAIN_STYLE | {"max_new_tokens": 128}),
    _Row("only", {"beta": 0.4, "gamma": 0.25}, (), ("mme",)),
    _Row("only", {}, LLAVA, (*POPE_BENCHMARKS, "chair", "mme"), _LLAVA_PROMPT),
    _Row("iava", {"alpha": 1.0, "beta": 0.1, "negative": "zeros"}),
)
"""The rows of a method in order: a later one adds to an earlier one."""


def check_preset(name: str | None) -> None:
    """Refuses the name of a preset that there is not; None is none."""
    if name is not None and name not in PRESETS:
        raise IavaError(f"unknown preset {name!r}: use {', '.join(PRESETS)}")


def preset(name: str, methods: Sequence[str], family: str, benchmark: str, given: Mapping[str, Any]) -> Preset:
    """What the authors' commands for a benchmark set.

    Args:
        name: of `PRESETS`.
        methods: command-line names.
        family: the model type, such as "llava" or "instructblip", or "pocket".
        benchmark: the data set.
        given: values of `RUN` that the caller chose; the methods need not agree about them.

    Raises:
        IavaError: if there is no such preset, or two methods ask for different values of something that holds for the
            whole run.
    """
    check_preset(name)
    settings: dict[str, dict[str, Any]] = {method: {} for method in methods}
    asked: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for row in ROWS:
        if row.method in settings and row.applies(family, benchmark):
            settings[row.method] |= row.settings
            asked[row.method] |= row.run
    return Preset(settings, **{what: _agreed(what, asked) for what in RUN if given.get(what) is None})


def _agreed(what: str, asked: Mapping[str, Mapping[str, Any]]) -> Any:
    """What all methods that name a value of something agree on; None if none does."""
    values: dict[Any, str] = {}
    for method, run in asked.items():
        if what in run:
            values.setdefault(run[what], method)
    if len(values) > 1:
        (one, first), (other, second) = list(values.items())[:2]
        option = "--" + what.replace("_", "-")
        raise IavaError(
            f"the published {what} of {first} is {one!r}, that of {second} {other!r}: give {option}, or run them apart"
        )
    return next(iter(values), None)
