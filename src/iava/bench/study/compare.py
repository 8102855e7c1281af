"""Methods side by side on the same yes-no questions, each against those that matter for the study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iava.bench import pope
from iava.bench.ablate import selected_share
from iava.bench.plots import estimates, panels
from iava.bench.records import Record
from iava.bench.results import number, pair, rows_of, title
from iava.bench.shift import beyond_bias
from iava.bench.stats import paired_difference
from iava.bench.tables import Cell, Line, Table, estimate

Outcome = dict[str, Any]


def outcomes(
    records: Sequence[Record],
    settings: Mapping[str, Mapping[str, Any]],
    references: Sequence[str],
    *,
    benchmark: str,
    seed: int,
) -> list[Outcome]:
    """What each method is, and how it differs.

    Args:
        records: of all methods, greedy among them; yes-no questions only.
        settings: method -> settings, in the order of the answer.
        references: methods with which each other one is compared.

    Returns:
        For each method: method, n, metrics and intervals (see `iava.bench.results.rows_of`), "against": reference ->
        difference of accuracy and its 95 % interval over images, "beyond_bias": what of its accuracy lies above what
        greedy decoding with a constant bias reaches at the same yes-ratio, with interval, "selected": mean share of
        the image's tokens, with interval, "false_yes": category -> share of the questions about what is not there.
    """
    answered = [record for record in records if "error" not in record]
    every = {method: {r["id"]: r for r in answered if r["method"] == method} for method in settings}
    common = sorted(set.intersection(*(set(some) for some in every.values())))
    if not common:
        raise ValueError("there is no question that every method answered")
    # In the order of images, as everywhere: two calls draw the same ones.
    order = sorted(common, key=lambda id: (every["greedy"][id]["image"], id))
    of = {method: [some[id] for id in order] for method, some in every.items()}
    rows = rows_of([r for some in of.values() for r in some], benchmark=benchmark, settings=settings, seed=seed)
    overall = {row["method"]: row for row in rows if row["category"] == "overall"}
    found = []
    for method in settings:
        mine = of[method]
        kept = {key: overall[method][key] for key in ("method", "n", "metrics", "intervals", "settings")}
        against = {name: _difference(mine, of[name], seed) for name in references if name != method}
        found.append(
            kept
            | {"against": against, "beyond_bias": _beyond(mine, of["greedy"], seed)}
            | {"selected": selected_share(mine, seed=seed), "false_yes": _false_yes(mine)}
        )
    return found


def _difference(ours: Sequence[Record], theirs: Sequence[Record], seed: int) -> tuple[float, Any]:
    def tally(some: Sequence[Record]) -> np.ndarray:
        return pope.tally([record["truth"] for record in some], [record["parsed"] for record in some])

    clusters = [record["image"] for record in ours]
    return paired_difference(tally(ours), tally(theirs), clusters, lambda s: pope.rates(s)["accuracy"], seed=seed)


def _beyond(ours: Sequence[Record], greedy: Sequence[Record], seed: int) -> tuple[float, Any]:
    return beyond_bias(
        [record["yes"] - record["no"] for record in greedy],
        [record["truth"] for record in greedy],
        [record["parsed"] == "yes" for record in ours],
        [record["parsed"] == record["truth"] for record in ours],
        [record["image"] for record in ours],
        seed=seed,
    )


def _false_yes(records: Sequence[Record]) -> dict[str, float]:
    absent = [record for record in records if record["truth"] == "no"]
    return {
        category: float(np.mean([r["parsed"] == "yes" for r in absent if r["category"] == category]))
        for category in dict.fromkeys(record["category"] for record in absent)
    }


def table(found: Sequence[Outcome], references: Sequence[str], heading: str, note: str) -> Table:
    """The outcomes in percent."""
    kinds = list(dict.fromkeys(kind for one in found for kind in one["false_yes"]))
    headings = ["Accuracy", *(f"vs {title(name)}" for name in references), "Beyond a bias", "AUC", "Yes-ratio"]
    headings += [*(f"False yes, {kind}" for kind in kinds), "Tokens selected"]
    return Table(heading, headings, [_line(one, references, kinds) for one in found], note)


def _line(one: Outcome, references: Sequence[str], kinds: Sequence[str]) -> Line:
    cells = [estimate(one, "accuracy")]
    cells += [_signed(one["against"].get(name)) for name in references]
    cells += [_signed(one["beyond_bias"] if one["method"] != "greedy" else None)]
    cells += [estimate(one, name) for name in ("auc", "yes_ratio")]
    cells += [Cell(number("", one["false_yes"].get(kind))) for kind in kinds]
    share, limits = one["selected"]
    return Line(title(one["method"]), [*cells, Cell(number("", share), pair("", limits) if limits else "")])


def _signed(difference: tuple[float, Any] | None) -> Cell:
    if difference is None:
        return Cell()
    value, limits = difference
    return Cell(number("", value, sign=True), pair("", limits, sign=True), value)


def drawing(found: Sequence[Outcome]) -> Any:
    """Accuracy, what lies beyond a bias, AUC and yes-ratio of each method; greedy decoding is the line across."""
    greedy = next(one for one in found if one["method"] == "greedy")
    others = [one for one in found if one is not greedy]
    labels = [title(one["method"]) for one in others]
    figure, axes = panels(1, 4)
    shown = {"accuracy": "Accuracy", "auc": "AUC", "yes_ratio": "Yes-ratio"}
    for panel, (name, heading) in zip(axes, shown.items(), strict=False):
        reference = ("greedy", greedy["metrics"][name], greedy["intervals"].get(name))
        values, limits = [one["metrics"][name] for one in others], [one["intervals"].get(name) for one in others]
        estimates(panel, values, limits, labels=labels, reference=reference, joined=False)
        panel.set_title(heading + ", %")
    beyond = [one["beyond_bias"] for one in others]
    reference = ("any constant bias", 0.0, None)
    estimates(axes[3], *zip(*beyond, strict=True), labels=labels, reference=reference, joined=False)
    axes[3].set_title("Accuracy beyond a constant bias, points")
    return figure
