"""Measures all methods where evidence is clean and where it is weak, on several pocket models, and writes the tables.

    python -m tools.lab runs/lab pocket FOLDER FOLDER --limit 20

The folders hold pocket models of other seeds, see docs/results.md. The measurement resumes. Nothing is chosen on a test
split: the constant bias and the ideal observer's weight come from the tuning split of the same kind. `tools.lab_tables`
makes the tables.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import evaluate
from iava.lvlm.loading import load
from iava.lvlm.model import LVLM
from iava.metrics.parts import Record
from iava.metrics.stats import auc
from iava.pocket.prior import log_odds
from iava.pocket.scenes import WEAK_EVIDENCE, load_scene
from iava.pocket.world import OBJECT_CLASSES

KINDS = ("", *WEAK_EVIDENCE, "heldout")
"""Suffixes of the splits; "" has normal evidence in the training styles."""
METHODS = (
    *("greedy", "sample", "apc", "prompt-bias", "no-image", "noise", "iava-random", "iava-relevant", "oracle"),
    *("restore", "iava", "iava+", "vcd", "icd", "m3id", "avisc", "pai", "sid", "only"),
)
"""With their default settings. The fitted bias and the ideal observer follow from greedy decoding."""
BLUR = {"kind": "blur", "strength": 0.01, "alpha": 3.0, "beta": 0.0}
"""VCD with a blurred image in place of a noisy one; chosen on the tuning splits (`iava study evidence`)."""
FITTED, IDEAL, BLURRED = "bias, fitted", "ideal observer", "VCD with blur"
"""Names of what is computed from other methods' records, or measured apart."""
WEIGHTS = np.arange(-3, 3.01, 0.05)
SEED = 42

Rows = dict[str, Record]


def split(base: str, kind: str) -> str:
    return f"{base}-{kind}" if kind else base


def plans(out: Path, models: Sequence[str], kinds: Sequence[str], limit: int) -> Iterator[tuple[Plan, Path]]:
    """The measurements, split by split, and their folders."""
    methods: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    for kind in kinds:
        tune, test = split("tune", kind), split("test", kind)
        for number, model in enumerate(models, start=1):
            folder = out / f"model{number}"
            yield Plan(model, {"greedy": {}}, tune, limit, SEED), folder / tune
            yield Plan(model, methods, test, limit, SEED), folder / test
            yield Plan(model, {"vcd": BLUR}, test, limit, SEED), folder / f"{test}-vcd-blur"


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


def margins(records: Rows) -> list[float]:
    return [record["yes"] - record["no"] for record in records.values()]


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
    values, right = np.array(margins(tune)), np.array(truths(tune)) == "yes"
    cuts = np.unique(values)
    cuts = np.concatenate([[0.0], (cuts[1:] + cuts[:-1]) / 2])
    scores = [np.mean((values > cut) == right) for cut in cuts]
    return -float(cuts[int(np.argmax(scores))])


def fitted_weight(tune: Rows) -> float:
    """The weight of the context's log odds whose subtraction gives the best AUC on a tuning split."""
    values, known = np.array(margins(tune)), priors(tune)
    return float(max(WEIGHTS, key=lambda weight: auc((values - weight * known).tolist(), truths(tune)) or 0.0))


def shifted(records: Rows, by: Any, name: str) -> Rows:
    """Greedy decoding's records with something added to the margin."""
    values = np.array(margins(records)) + by
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
    extra = {
        FITTED: shifted(greedy, fitted_bias(tune), "bias"),
        IDEAL: shifted(greedy, -fitted_weight(tune) * priors(greedy), "ideal"),
        BLURRED: rows(out / f"{test}-vcd-blur")["vcd"],
    }
    return found | extra


def main(
    out: Path,
    models: list[str],
    limit: Annotated[int, typer.Option(help="Images of each split.")] = 20,
    kinds: Annotated[str, typer.Option(help="Suffixes of the splits, with commas; clean is no suffix.")] = "",
) -> None:
    """Measure what is missing, and write OUT/summary.md and OUT/splits.md about all splits that are measured."""
    from tools.lab_tables import write_tables

    chosen = [kind.replace("clean", "") for kind in kinds.split(",")] if kinds else KINDS
    loaded: dict[str, LVLM] = {}
    for plan, folder in plans(out, models, chosen, limit):
        print(command(plan, folder), flush=True)
        if plan.model not in loaded:
            loaded[plan.model] = load(plan.model)
        evaluate(loaded[plan.model], plan, folder)
    write_tables(out, len(models))


if __name__ == "__main__":
    typer.run(main)
