"""How much does the wording of the general instruction matter? Ten of them, and means of several.

What is selected under each is compared by Jaccard's index, the number of tokens in both selections over that in either;
what is answered, by accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iava.bench.ablate import GENERALS
from iava.bench.plots import panels
from iava.bench.records import Record, Records, circumstances, fingerprint, open_run
from iava.bench.results import number, pair
from iava.bench.runner import Advance, Plan, evaluate
from iava.bench.stats import bootstrap
from iava.bench.study.compare import outcomes, table
from iava.bench.study.outcome import leave
from iava.bench.study.variants import Averaged
from iava.bench.tables import Cell, Line, Table
from iava.bench.task import first_images
from iava.bench.typeset import markdown
from iava.lvlm import LVLM
from iava.methods import IAVA
from iava.methods.base import Method

PARAPHRASES = 6
"""So many of the instructions ask for a description; the others ask for something else."""
_REFERENCES = ("greedy", "describe")


class Worded(IAVA):
    """IAVA with a general instruction of its own, under a name of its own."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.name = name


def wording(
    lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None, *, overlaps: int = 100
) -> dict[str, Any]:
    """Measures, or goes on, and leaves study.json, study.md and study.svg in the folder.

    Args:
        plan: of "greedy" and "iava" with the settings that stay.
        overlaps: images on whose questions selections are compared.

    Returns:
        What is in the JSON: "generals", "outcomes" (see `iava.bench.study.compare`), "spread" of accuracy over the ten
        instructions, "overlap": see `overlap`; and the manifest.

    Raises:
        ValueError: as `iava.bench.runner.evaluate`.
    """
    settings = {key: value for key, value in plan.methods["iava"].items() if key != "general"}
    names = [f"{'paraphrase' if n < PARAPHRASES else 'unrelated'} {n}" for n in range(len(GENERALS))]
    names[0] = _REFERENCES[1]
    others: list[Method] = [Worded(name, general=text, **settings) for name, text in zip(names, GENERALS, strict=True)]
    others.append(Averaged("mean of paraphrases", GENERALS[:PARAPHRASES], **settings))
    others.append(Averaged("mean of all", GENERALS, **settings))
    others = [method.bind(lvlm.model, lvlm.processor) for method in others]
    results = evaluate(lvlm, replace(plan, methods={"greedy": {}}), folder / "accuracy", advance, others=others)
    records = Records(folder / "accuracy" / "records.jsonl").rows
    found = outcomes(records, results["methods"], _REFERENCES, benchmark=plan.benchmark, seed=plan.seed)
    accuracies = [one["metrics"]["accuracy"] for one in found if one["method"] in names]
    selections = _selections(lvlm, plan, settings, folder / "overlap", overlaps, advance)
    study = {
        "generals": dict(zip(names, GENERALS, strict=True)),
        "outcomes": found,
        "spread": {"lowest": min(accuracies), "highest": max(accuracies), "std": float(np.std(accuracies, ddof=1))},
        "overlap": overlap(selections, seed=plan.seed),
        "manifest": results["manifest"],
    }
    return leave(folder, study, _told(study, plan), _drawn(study))


def _selections(
    lvlm: LVLM, plan: Plan, settings: Mapping[str, Any], folder: Path, images: int, advance: Advance
) -> list[Record]:
    """Which tokens are selected under each instruction; a record a question."""
    task = first_images(plan.task, images)
    methods = [lvlm.method("iava", general=general, **settings) for general in GENERALS]
    told: dict[str, Any] = {"study": "wording", "questions": task.digest, "split": task.split, "model": plan.model}
    told |= {"weights": fingerprint(lvlm.model), "generals": list(GENERALS), "method": methods[0].settings()}
    open_run(folder, told, circumstances(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["image"] for record in records.rows}
    advance("overlap of selections", len(done), len(task.images))
    for image in task.images:
        if image in done:
            continue
        asked = list(dict.fromkeys(q.question for q in task.questions if q.image == image))
        reading = lvlm.read(task.open_image(image))
        rows: list[Record] = [{"image": image, "question": question, "selected": []} for question in asked]
        for method in methods:
            answers = reading.ask_many(asked, method=method, max_new_tokens=1, explain=True)
            for row, answer in zip(rows, answers, strict=True):
                assert answer.explanation is not None
                assert answer.explanation.selected is not None
                row["selected"].append(answer.explanation.selected.nonzero().flatten().tolist())
                row["tokens"] = len(answer.explanation.selected)
        records.append(rows)
        done.add(image)
        advance("overlap of selections", len(done), len(task.images))
    return records.rows


def overlap(records: Sequence[Record], *, seed: int) -> dict[str, Any]:
    """How much the selections under K instructions have in common.

    Args:
        records: of a question each: image, tokens (how many), selected (K lists of indices).

    Returns:
        "jaccard" (K, K), means over questions; two empty selections are equal. "paraphrases", "unrelated" and "across":
        [mean over the pairs of that kind, 95 % interval over images]; "chance", the same of all pairs for random
        selections of the same sizes.
    """
    images = [record["image"] for record in records]
    each, chance = [], []
    for record in records:
        chosen = np.zeros((len(record["selected"]), record["tokens"]))
        for row, indices in zip(chosen, record["selected"], strict=True):
            row[indices] = 1
        both, sizes = chosen @ chosen.T, chosen.sum(axis=1)
        either = sizes[:, None] + sizes - both
        each.append(np.divide(both, either, out=np.ones_like(both), where=either > 0))
        expected = np.outer(sizes, sizes) / record["tokens"]
        rest = sizes[:, None] + sizes - expected
        chance.append(np.divide(expected, rest, out=np.ones_like(both), where=rest > 0))
    matrices = np.stack(each)
    first, second = np.triu_indices(matrices.shape[1], k=1)
    kinds = {
        "paraphrases": second < PARAPHRASES,
        "unrelated": first >= PARAPHRASES,
        "across": (first < PARAPHRASES) & (second >= PARAPHRASES),
    }
    found: dict[str, Any] = {"jaccard": matrices.mean(axis=0).tolist()}
    for kind, pairs in kinds.items():
        found[kind] = _mean(matrices[:, first[pairs], second[pairs]].mean(axis=1), images, seed)
    found["chance"] = _mean(np.stack(chance)[:, first, second].mean(axis=1), images, seed)
    return found


def _mean(values: np.ndarray, images: Sequence[str], seed: int) -> list[Any]:
    rows = np.stack([values, np.ones_like(values)], axis=1)
    return [float(values.mean()), list(bootstrap(rows, images, lambda s: s[:, 0] / s[:, 1], seed=seed))]


def _told(study: Mapping[str, Any], plan: Plan) -> str:
    found, spread = study["outcomes"], study["spread"]
    where = f"{plan.benchmark}, {plan.task.split}, model {plan.model}"
    note = (
        f"Accuracy over the ten instructions: {number('', spread['lowest'])} to {number('', spread['highest'])}, "
        f"standard deviation {100 * spread['std']:.2f} points. Percent and points, 95 % intervals over images; "
        f"{found[0]['n']:,} questions; seed {plan.seed}."
    )
    accuracy = markdown(table(found, _REFERENCES, f"The wording of the general instruction ({where})", note))
    texts = "".join(f"- {name}: “{text}”\n" for name, text in study["generals"].items())
    kinds = {
        "paraphrases": "Two paraphrases",
        "across": "A paraphrase and an unrelated one",
        "unrelated": "Two unrelated ones",
        "chance": "Random selections of the same sizes",
    }
    lines = [
        Line(text, [Cell(number("", study["overlap"][kind][0]), pair("", study["overlap"][kind][1]))])
        for kind, text in kinds.items()
    ]
    return f"{accuracy}\n{texts}\n{markdown(Table('Overlap of selections', ['Jaccard, %'], lines, head='Between'))}"


def _drawn(study: Mapping[str, Any]) -> Figure:
    names = list(study["generals"])
    figure, axes = panels(1, 1, width=6, height=5)
    shown = axes[0].imshow(np.array(study["overlap"]["jaccard"]), vmin=0, vmax=1, cmap="Blues")
    axes[0].set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_title("Overlap of selections (Jaccard)")
    figure.colorbar(shown, ax=axes[0])
    return figure
