"""The caption frontier of several runs: every setting of every method against the frontier of the trivial controls."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.runs import Run
from iava.jsonfiles import read_json
from iava.methods import METHODS
from iava.metrics.frontier import RATIOS, Distance, caption_sums, curve, distance, resampled_totals
from iava.metrics.parts import Record, group_of
from iava.metrics.results import is_control
from iava.metrics.stats import Interval, by_cluster, holm, interval

METRICS = ("recall", "object_f1")
"""What may be drawn against CHAIRi, and matched."""
LENGTH = "things"
"""The length that is matched: things named per caption. Unlike words it is known where things are dropped."""

FrontierCurve = list[tuple[float, float, Interval]]
"""See `iava.metrics.frontier.curve`."""


@dataclass(frozen=True)
class Setting:
    """A method's captions under one of its settings.

    Args:
        method: command-line name.
        settings: of the method, complete.
        folder: of its run.
        records: by question id.
    """

    method: str
    settings: Mapping[str, Any]
    folder: Path
    records: Mapping[str, Record] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """What was measured of a setting.

    Args:
        setting: the setting.
        strength: what sets it apart from the method's other settings, such as "alpha=0.5"; "" if there are none.
        metrics: CHAIRi, recall, F1, things and words per caption; see `iava.metrics.frontier.RATIOS`.
        intervals: of each, 95 % over images.
        distances: by the metric that is matched; None for controls, and where no control reaches the value.
        tested: whether its p-values count, and are corrected with those of the other tested settings.
        p_holm: by the metric that is matched.
    """

    setting: Setting
    strength: str
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    distances: dict[str, Distance | None]
    tested: bool
    p_holm: dict[str, float]


@dataclass(frozen=True)
class Frontier:
    """Settings of methods and controls on the same images.

    Args:
        runs: where they come from.
        metric: of `METRICS`.
        controls: the methods that make the frontier.
        images: how many images.
        outcomes: of every setting, in the order of the runs.
        curves: (method, matched metric) -> its whole sweep; the method "" is the frontier of the controls.
    """

    runs: Sequence[Run] = field(repr=False)
    metric: str
    controls: Sequence[str]
    images: int
    outcomes: Sequence[Outcome]
    curves: Mapping[tuple[str, str], FrontierCurve] = field(repr=False)

    @property
    def best(self) -> dict[str, Mapping[str, Any]]:
        """Of each method the setting that lies lowest below the frontier, at the same value of the metric.

        A value that no control reaches lies below every frontier. Of several such settings, the one with the lowest
        CHAIRi is the best.
        """
        found: dict[str, Outcome] = {}
        for outcome in self.outcomes:
            method = outcome.setting.method
            if outcome.distances and (method not in found or self._rank(outcome) < self._rank(found[method])):
                found[method] = outcome
        return {method: outcome.setting.settings for method, outcome in found.items()}

    def _rank(self, outcome: Outcome) -> tuple[float, float]:
        away = outcome.distances[self.metric]
        return -np.inf if away is None else away.difference, outcome.metrics["chair_i"]


def is_trivial(method: str) -> bool:
    """Whether a method is a control without a contrast branch."""
    return is_control(method) and not METHODS[method].has_branches()


def sweeps(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of one method each that caption the same images, together; without a control nothing is compared."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if len(run.settings["methods"]) == 1 and benchmark(run.settings["benchmark"]).names_things:
            found.setdefault(json.dumps(_shared(run), sort_keys=True), []).append(run)
    return [some for some in found.values() if len(some) > 1 and any(map(_is_of_control, some))]


def _shared(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.settings.items() if key != "methods"}


def _is_of_control(run: Run) -> bool:
    return any(map(is_trivial, run.settings["methods"]))


def _settings_in(runs: Sequence[Run]) -> list[Setting]:
    """The settings that runs of captions hold, method by method."""
    shared = [_shared(run) for run in runs]
    settings: list[Setting] = []
    for run, own in zip(runs, shared, strict=True):
        if not benchmark(run.settings["benchmark"]).names_things:
            raise IavaError(f"{run.folders[0]} holds answers to {run.settings['benchmark']}, not captions: use chair")
        unequal = [key for key in {**shared[0], **own} if shared[0].get(key) != own.get(key)]
        if unequal:
            raise IavaError(
                f"{run.folders[0]} and {runs[0].folders[0]} differ in {', '.join(unequal)}: a frontier needs the same "
                "captions of all"
            )
        for method, chosen in run.settings["methods"].items():
            if any((one.method, one.settings) == (method, chosen) for one in settings):
                raise IavaError(f"{run.folders[0]} holds {method} with settings that another run has: name one of them")
            records = {record["id"]: record for record in run.of(method)}
            settings.append(Setting(method, chosen, run.folders[0], records))
    methods = list(dict.fromkeys(one.method for one in settings))
    return sorted(settings, key=lambda one: (methods.index(one.method), _numbers(one)))


def _numbers(one: Setting) -> list[float]:
    return [value for value in one.settings.values() if isinstance(value, int | float)]


def frontier(
    runs: Sequence[Run],
    *,
    metric: str = "recall",
    controls: Sequence[str] | None = None,
    chosen: Mapping[str, Mapping[str, Any]] | None = None,
) -> Frontier:
    """Compares every setting with the frontier of the controls.

    Args:
        runs: of captions, as `iava sweep` and `iava eval` make them.
        metric: of `METRICS`.
        controls: the methods that make the frontier; None: all trivial ones, see `is_trivial`.
        chosen: method -> the one setting that is tested; None: all settings are tested.

    Raises:
        IavaError: if the runs are not of captions or not of the same ones, two hold the same setting, no image has a
            caption by every method, or there is no such metric or control.
    """
    if metric not in METRICS:
        raise IavaError(f"metric is {metric!r}: use one of {', '.join(METRICS)}")
    settings = _settings_in(runs)
    names = list(dict.fromkeys(one.method for one in settings))
    ours = [name for name in names if is_trivial(name)] if controls is None else list(controls)
    missing = [name for name in ours if name not in names]
    if missing or not ours:
        raise IavaError(f"the runs hold no {', '.join(missing) or 'control'}: they hold {', '.join(names)}")
    ids = [id for id in settings[0].records if all(id in one.records for one in settings)]
    if not ids:
        raise IavaError("no image has a caption by every method: let the runs go on")
    groups = [group_of(settings[0].records[id]) for id in ids]
    sums = np.stack([by_cluster(caption_sums([one.records[id] for id in ids]), groups) for one in settings])
    seed = runs[0].settings["seed"]
    draws = resampled_totals(sums, seed=seed)
    of_controls = [number for number, one in enumerate(settings) if one.method in ours]

    def outcome(number: int) -> Outcome:
        one = settings[number]
        away: dict[str, Distance | None] = {}
        if one.method not in ours:
            for name in (metric, LENGTH):
                pair = draws[number], draws[of_controls]
                found = distance(sums[number], sums[of_controls], pair, RATIOS[name], seed=seed)
                away[name] = found and _with_numbers(found, of_controls)
        return Outcome(
            one,
            _strength(one, settings),
            {name: float(ratio.of(sums[number].sum(axis=0))) for name, ratio in RATIOS.items()},
            {name: interval(ratio.of(draws[number])) for name, ratio in RATIOS.items()},
            away,
            bool(away) and (chosen is None or chosen.get(one.method) == one.settings),
            {},
        )

    outcomes = [outcome(number) for number in range(len(settings))]
    for name in (metric, LENGTH):
        tested = [(one, away) for one in outcomes if one.tested and (away := one.distances[name]) is not None]
        for (one, _), p in zip(tested, holm([away.p for _, away in tested]), strict=True):
            one.p_holm[name] = p
    curves = {}
    for name in ("", *names):
        rows = [n for n, one in enumerate(settings) if one.method == name] if name else of_controls
        for matched in (metric, LENGTH):
            curves[name, matched] = curve(sums[rows], draws[rows], RATIOS[matched])
    return Frontier(runs, metric, ours, len(set(groups)), outcomes, curves)


def _with_numbers(found: Distance, numbers: Sequence[int]) -> Distance:
    return Distance(found.difference, found.interval, [(numbers[n], part) for n, part in found.controls], found.p)


def _strength(one: Setting, settings: Sequence[Setting]) -> str:
    others = [other.settings for other in settings if other.method == one.method]
    varied = [name for name in one.settings if any(other.get(name) != one.settings[name] for other in others)]
    return ", ".join(f"{name}={one.settings[name]}" for name in varied)


def results(found: Frontier) -> dict[str, Any]:
    """A frontier ready for JSON: "best" (method -> settings) and "settings", each with metrics and distances."""
    return {
        "metric": found.metric,
        "length": LENGTH,
        "controls": list(found.controls),
        "images": found.images,
        "runs": [str(run.folders[0]) for run in found.runs],
        **{key: found.runs[0].settings.get(key) for key in ("benchmark", "split", "model", "limit", "seed")},
        "best": found.best,
        "settings": [
            {
                "method": one.setting.method,
                "settings": one.setting.settings,
                "strength": one.strength,
                "metrics": one.metrics,
                "intervals": one.intervals,
                "tested": one.tested,
                "distances": {name: away and _distance(found, one, name, away) for name, away in one.distances.items()},
            }
            for one in found.outcomes
        ],
    }


def _distance(found: Frontier, one: Outcome, name: str, away: Distance) -> dict[str, Any]:
    return {
        "difference": away.difference,
        "interval": away.interval,
        "controls": [
            {"method": found.outcomes[n].setting.method, "settings": found.outcomes[n].setting.settings, "share": part}
            for n, part in away.controls
        ],
        "p": away.p,
        "p_holm": one.p_holm.get(name),
    }


def read_chosen(path: Path) -> dict[str, Mapping[str, Any]]:
    """The best settings of an earlier frontier, from the JSON that `iava frontier` wrote.

    Raises:
        IavaError: if the file is something else.
    """
    content = read_json(path)
    best = content.get("best") if isinstance(content, dict) else None
    if not isinstance(best, dict) or not all(isinstance(one, dict) for one in best.values()):
        raise IavaError(f"{path} names no best settings: give the JSON that iava frontier wrote")
    return best
