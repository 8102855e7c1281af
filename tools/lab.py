"""Measures the methods where evidence is clean and where it is weak, on several pocket models, and writes the tables.

    python -m tools.lab runs/lab pocket FOLDER FOLDER --limit 20

The folders hold pocket models of other seeds, see docs/results.md. The measurement resumes. Nothing is chosen on a test
split: the constant bias and the ideal observer's weight come from the tuning split of the same kind.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from iava.benchmarks.sources.pocket import pocket
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import evaluate
from iava.lvlm.loading import load
from iava.lvlm.model import LVLM
from iava.metrics.parts import Record
from iava.metrics.shift import at_best_threshold, beyond_bias
from iava.metrics.stats import auc, auc_difference, paired_difference
from iava.pocket.prior import log_odds
from iava.pocket.scenes import WEAK_EVIDENCE, load_scene
from iava.pocket.world import OBJECT_CLASSES

KINDS = ("", *WEAK_EVIDENCE, "heldout")
"""Suffixes of the splits; "" has normal evidence in the training styles."""
METHODS = ("greedy", "restore", "vcd", "iava+")
"""Measured on every model. The others follow on the first model only."""
OTHERS = (
    *("sample", "apc", "prompt-bias", "no-image", "noise", "iava", "iava-random", "iava-relevant", "oracle"),
    *("icd", "m3id", "avisc", "pai", "sid", "only"),
)
BLUR = {"kind": "blur", "strength": 0.01, "alpha": 3.0, "beta": 0.0}
"""VCD with a blurred image in place of a noisy one; chosen on the tuning splits (`iava study evidence`)."""
WEIGHTS = np.arange(-3, 3.01, 0.05)
SEED = 42

Rows = dict[str, Record]


def split(base: str, kind: str) -> str:
    return f"{base}-{kind}" if kind else base


def plans(out: Path, models: Sequence[str], limit: int, others: int) -> Iterator[tuple[Plan, Path]]:
    """The measurements, split by split, and their folders."""
    methods: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    rest: dict[str, dict[str, Any]] = {name: {} for name in OTHERS}
    for kind in KINDS:
        tune, test = split("tune", kind), split("test", kind)
        for number, model in enumerate(models, start=1):
            folder = out / f"model{number}"
            yield Plan(model, {"greedy": {}}, tune, limit, SEED), folder / tune
            yield Plan(model, methods, test, limit, SEED), folder / test
            yield Plan(model, {"vcd": BLUR}, test, limit, SEED), folder / f"{test}-vcd-blur"
    for kind in KINDS:
        test = split("test", kind)
        yield Plan(models[0], rest, test, others, SEED), out / "model1" / f"{test}-others"


def command(plan: Plan, folder: Path) -> str:
    """The command line that measures the same."""
    settings = [f" --set {name}.{key}={value}" for name, some in plan.methods.items() for key, value in some.items()]
    return (
        f"iava eval pope --model {plan.model} --methods {','.join(plan.methods)} --split {plan.split} "
        f"--limit {plan.limit} --seed {plan.seed} --out {folder}{''.join(settings)}"
    )


def rows(folder: Path) -> dict[str, Rows]:
    """Method -> question's id -> record."""
    found: dict[str, Rows] = {}
    for record in Records(folder / "records.jsonl").rows:
        found.setdefault(record["method"], {})[record["id"]] = record
    return found


def margins(records: Rows) -> np.ndarray:
    return np.array([record["yes"] - record["no"] for record in records.values()])


def truths(records: Rows) -> list[str]:
    return [record["truth"] for record in records.values()]


def priors(records: Rows) -> np.ndarray:
    """The log odds of each question's object given the context of its scene."""
    found = []
    for record in records.values():
        name, index = record["image"].rsplit("-", 1)
        asked = next(one for one in OBJECT_CLASSES if f" {one} " in record["question"])
        found.append(log_odds(load_scene(name, int(index)).context, asked))
    return np.array(found)


def fitted_bias(tune: Rows) -> float:
    """The bias with the best accuracy on a tuning split."""
    values, right = margins(tune), np.array(truths(tune)) == "yes"
    cuts = np.unique(values)
    cuts = np.concatenate([[0.0], (cuts[1:] + cuts[:-1]) / 2])
    scores = [np.mean((values > cut) == right) for cut in cuts]
    return -float(cuts[int(np.argmax(scores))])


def fitted_weight(tune: Rows) -> float:
    """The weight of the context's log odds whose subtraction gives the best AUC on a tuning split."""
    values, known = margins(tune), priors(tune)
    return float(max(WEIGHTS, key=lambda weight: auc(values - weight * known, truths(tune)) or 0.0))


def shifted(records: Rows, by: Any, name: str) -> Rows:
    """Greedy decoding's records with something added to the margin."""
    values = margins(records) + by
    return {
        id: {**record, "method": name, "yes": value, "no": 0.0, "parsed": "yes" if value > 0 else "no"}
        for (id, record), value in zip(records.items(), values.tolist(), strict=True)
    }


def measured(out: Path, kind: str) -> dict[str, Rows]:
    """All methods of one model on one test split: also the fitted bias, the ideal observer and the blurred contrast."""
    folder, test = out / split("test", kind), split("test", kind)
    found = rows(folder)
    tune = rows(out / split("tune", kind))["greedy"]
    greedy = found["greedy"]
    weight = fitted_weight(tune)
    extra = {
        "bias, fitted": shifted(greedy, fitted_bias(tune), "bias"),
        f"ideal observer ({weight:+.2f})": shifted(greedy, -weight * priors(greedy), "ideal"),
        "VCD with blur": rows(out / f"{test}-vcd-blur")["vcd"],
    }
    others = rows(out / f"{test}-others") if (out / f"{test}-others").exists() else {}
    return found | extra | others


def line(ours: Rows, greedy: Rows, ideal: float, clean: float) -> list[str]:
    """The cells of one method on one split of one model. Methods asked about fewer images are compared on those."""
    greedy = {id: greedy[id] for id in ours}
    truth, images = truths(ours), [record["image"] for record in ours.values()]
    right, theirs = (np.array([[r["parsed"] == r["truth"], 1.0] for r in some.values()]) for some in (ours, greedy))
    said = [record["parsed"] == "yes" for record in ours.values()]
    reference, own = margins(greedy), margins(ours)
    accuracy, limits = paired_difference(right, theirs, images, lambda s: s[..., 0] / s[..., 1], seed=SEED)
    gain, gain_limits = auc_difference(own, reference, truth, images, seed=SEED)
    best, more, more_limits = at_best_threshold(own, reference, truth, images, seed=SEED)
    beyond, beyond_limits = beyond_bias(reference, truth, said, right[:, 0].astype(bool).tolist(), images, seed=SEED)
    base = auc(reference, truth) or 0.0
    return [
        f"{100 * right[:, 0].mean():.1f}",
        _points(accuracy, limits),
        f"{100 * (auc(own, truth) or 0.0):.1f}",
        _points(gain, gain_limits),
        f"{100 * best:.1f}",
        _points(more, more_limits),
        _points(beyond, beyond_limits),
        _share(gain, ideal - base),
        _share(gain, clean - base),
    ]


def _points(value: float, limits: tuple[float, float]) -> str:
    return f"{100 * value:+.1f} [{100 * limits[0]:+.1f}, {100 * limits[1]:+.1f}]"


def _share(gain: float, whole: float) -> str:
    return f"{100 * gain / whole:.0f}" if whole > 0.005 else "–"


HEADINGS = (
    *("model", "accuracy", "vs greedy", "AUC", "vs greedy", "best threshold", "vs greedy's", "beyond bias"),
    *("% of the ideal gain", "% of lost AUC"),
)


def table(out: Path, models: int, kind: str) -> str:
    """The Markdown table of one test split: a row for each method and model."""
    lines = [f"| method | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    every = [measured(out / f"model{number}", kind) for number in range(1, models + 1)]
    clean = [rows(out / f"model{number}" / "test")["greedy"] for number in range(1, models + 1)]
    names = dict.fromkeys(name.split(" (")[0] for found in every for name in found)
    for name in names:
        for number, found in enumerate(every):
            full = next((one for one in found if one.split(" (")[0] == name), None)
            if full is None:
                continue
            greedy = found["greedy"]
            top = next(one for label, one in found.items() if label.startswith("ideal"))
            ideal, whole = (auc(margins(one), truths(one)) or 0.0 for one in (top, clean[number]))
            cells = line(found[full], greedy, ideal, whole)
            lines.append(f"| {full} | {number + 1} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Path,
    models: list[str],
    limit: Annotated[int, typer.Option(help="Images of each split.")] = 20,
    others: Annotated[int, typer.Option(help="Images of each split for the methods of the first model only.")] = 10,
    tables_only: bool = False,
) -> None:
    """Measure what is missing, and write OUT/tables.md."""
    loaded: dict[str, LVLM] = {}
    for plan, folder in plans(out, models, limit, others):
        print(command(plan, folder), flush=True)
        if not tables_only:
            if plan.model not in loaded:
                loaded[plan.model] = load(plan.model)
            evaluate(loaded[plan.model], plan, folder)
    parts = []
    for kind in KINDS:
        images = len(pocket("pope", split("test", kind), limit).images)
        parts.append(f"## `{split('test', kind)}`\n\n{images} images.\n\n{table(out, len(models), kind)}\n")
    (out / "tables.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
