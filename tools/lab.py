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

from iava.evaluation.plan import Plan
from iava.evaluation.records import Records
from iava.evaluation.runner import evaluate
from iava.files import write_text
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
RESULTS = "results.json"

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


def line(ours: Rows, greedy: Rows, control: Rows, ideal: float, clean: float) -> list[str]:
    """The cells of one method on one split of one model. Methods asked about fewer images are compared on those.

    Args:
        control: of the best control.
        ideal: AUC of the ideal observer.
        clean: AUC of greedy decoding on the same scenes with normal evidence.
    """
    greedy, control = ({id: some[id] for id in ours} for some in (greedy, control))
    truth, images = truths(ours), [record["image"] for record in ours.values()]
    right, theirs = (_right(some) for some in (ours, control))
    said = [record["parsed"] == "yes" for record in ours.values()]
    reference, own = margins(greedy), margins(ours)
    accuracy, limits = paired_difference(right, theirs, images, lambda s: s[..., 0] / s[..., 1], seed=SEED)
    gain, gain_limits = auc_difference(own, reference, truth, images, seed=SEED)
    best, more, more_limits = at_best_threshold(own, reference, truth, images, seed=SEED)
    correct = right[:, 0].astype(bool).tolist()
    beyond, beyond_limits = beyond_bias(reference, truth, said, correct, images, seed=SEED)
    base = _auc(greedy)
    return [
        f"{100 * right[:, 0].mean():.1f}",
        _points(accuracy, limits),
        f"{100 * _auc(ours):.1f}",
        _points(gain, gain_limits),
        f"{100 * best:.1f}",
        _points(more, more_limits),
        _points(beyond, beyond_limits),
        _share(gain, ideal - base),
        _share(gain, clean - base),
    ]


def _right(records: Rows) -> np.ndarray:
    return np.array([[record["parsed"] == record["truth"], 1.0] for record in records.values()])


def _auc(records: Rows) -> float:
    return auc(margins(records), truths(records)) or 0.0


def _points(value: float, limits: tuple[float, float]) -> str:
    return f"{100 * value:+.1f} [{100 * limits[0]:+.1f}, {100 * limits[1]:+.1f}]"


def _share(gain: float, whole: float) -> str:
    return f"{100 * gain / whole:.0f}" if whole > 0.005 else "–"


HEADINGS = (
    *("accuracy", "vs best control", "AUC", "vs greedy", "at best threshold", "vs greedy's", "beyond bias"),
    *("% of ideal gain", "% of lost AUC"),
)
CONTROLS = ("greedy", FITTED, "restore")


def table(out: Path, models: int, kind: str) -> str:
    """The Markdown table of one test split. Each cell has a line for each model."""
    lines = [f"| method | {' | '.join(HEADINGS)} |", "|---" * (len(HEADINGS) + 1) + "|"]
    every = [measured(out / f"model{number}", kind) for number in range(1, models + 1)]
    clean = [_auc(rows(out / f"model{number}" / "test")["greedy"]) for number in range(1, models + 1)]
    for name in every[0]:
        cells = []
        for found, whole in zip(every, clean, strict=True):
            if name in found:
                control = CONTROLS[int(np.argmax([_right(found[one])[:, 0].mean() for one in CONTROLS]))]
                ideal = _auc(found[IDEAL])
                cells.append(line(found[name], found["greedy"], found[control], ideal, whole))
        joined = ["<br>".join(column) for column in zip(*cells, strict=True)]
        lines.append(f"| {name} | {' | '.join(joined)} |")
    return "\n".join(lines)


def summary(out: Path, models: int, kinds: Sequence[str]) -> str:
    """The AUC of the main methods on all splits, with a line for each model."""
    names = ("greedy", "vcd", BLURRED, "iava+", IDEAL, "restore")
    lines = [f"| split | {' | '.join(names)} | weight subtracted |", "|---" * (len(names) + 2) + "|"]
    for kind in kinds:
        every = [measured(out / f"model{number}", kind) for number in range(1, models + 1)]
        cells = ["<br>".join(f"{100 * _auc(found[name]):.1f}" for found in every) for name in names]
        tuned = [rows(out / f"model{number}" / split("tune", kind))["greedy"] for number in range(1, models + 1)]
        cells.append("<br>".join(f"{fitted_weight(tune):+.2f}" for tune in tuned))
        lines.append(f"| `{split('test', kind)}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    out: Path,
    models: list[str],
    limit: Annotated[int, typer.Option(help="Images of each split.")] = 20,
    kinds: Annotated[str, typer.Option(help="Suffixes of the splits, with commas; clean is no suffix.")] = "",
) -> None:
    """Measure what is missing, and write OUT/tables.md about all splits that are measured."""
    chosen = [kind.replace("clean", "") for kind in kinds.split(",")] if kinds else KINDS
    loaded: dict[str, LVLM] = {}
    for plan, folder in plans(out, models, chosen, limit):
        print(command(plan, folder), flush=True)
        if plan.model not in loaded:
            loaded[plan.model] = load(plan.model)
        evaluate(loaded[plan.model], plan, folder)
    write_tables(out, len(models))


def write_tables(out: Path, models: int) -> None:
    """Writes OUT/tables.md: a summary, and a table for each split that is measured on all models."""
    last = [[out / f"model{n}" / f"{split('test', kind)}-vcd-blur" for n in range(1, models + 1)] for kind in KINDS]
    kinds = [kind for kind, runs in zip(KINDS, last, strict=True) if all((run / RESULTS).exists() for run in runs)]
    parts = [summary(out, models, kinds)]
    for kind in kinds:
        images = {record["image"] for record in rows(out / "model1" / split("test", kind))["greedy"].values()}
        parts.append(f"### `{split('test', kind)}`\n\n{len(images)} images.\n\n{table(out, models, kind)}")
    write_text(out / "tables.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    typer.run(main)
