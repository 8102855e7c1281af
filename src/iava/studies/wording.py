"""How much does the wording of the general instruction matter? Ten of them, and means of several.

What is selected under each is compared by Jaccard's index, the number of tokens in both selections over that in either;
what is answered, by accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks.task import first_groups
from iava.evaluation.environment import environment, fingerprint
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, open_run
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.metrics.parts import Record
from iava.metrics.stats import bootstrap
from iava.reporting.formatting import number, pair
from iava.reporting.plots import panels
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Line, Table
from iava.studies.ablate import PARAPHRASES, UNRELATED
from iava.studies.compare import compare, leave
from iava.studies.variants import Averaged

OVERLAPS = 20
"""Images on whose questions selections are compared."""
_KINDS = {
    "paraphrases": "Two paraphrases",
    "across": "A paraphrase and an unrelated one",
    "unrelated": "Two unrelated ones",
    "chance": "Random selections of the same sizes",
}


def wording(
    lvlm: LVLM,
    plan: Plan,
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    paraphrases: Sequence[str] = PARAPHRASES,
    unrelated: Sequence[str] = UNRELATED,
) -> dict[str, Any]:
    """Measures, or goes on, and leaves results.json, table.md and plot.png in the folder.

    Args:
        plan: of "greedy" and "iava" with the settings that stay.
        paraphrases, unrelated: at least two general instructions of each kind; the first is the one the others are
            compared with.

    Returns:
        See `compare`; and "generals", "spread" of accuracy over the instructions, "overlap": see `overlap`.

    Raises:
        IavaError: as `iava.evaluation.runner.evaluate`.
    """
    generals = {f"paraphrase {n}": text for n, text in enumerate(paraphrases, start=1)}
    generals |= {f"unrelated {n}": text for n, text in enumerate(unrelated, start=1)}
    names, every = list(generals), [*paraphrases, *unrelated]
    # One instruction is its own mean.
    asked = {name: [text] for name, text in generals.items()}
    asked |= {"mean of paraphrases": list(paraphrases), "mean of all": every}
    made = [Averaged(name, texts, **plan.methods["iava"]) for name, texts in asked.items()]
    others = [method.bind(lvlm.model, lvlm.processor) for method in made]
    short = replace(plan, methods={"greedy": {}})
    heading = "The wording of the general instruction"
    found, told = compare(lvlm, short, folder, advance, reference=names[0], heading=heading, others=others)
    accuracies = [one["metrics"]["accuracy"] for one in found["outcomes"] if one["method"] in names]
    records = _selections(lvlm, plan, others[: len(names)], folder / "overlap", advance)
    found |= {
        "generals": generals,
        "spread": {"lowest": min(accuracies), "highest": max(accuracies), "std": float(np.std(accuracies, ddof=1))},
        "overlap": overlap(records, len(paraphrases), seed=plan.seed),
    }
    figure, axes = panels(1, 1, width=6, height=5)
    shown = axes[0].imshow(np.array(found["overlap"]["jaccard"]), vmin=0, vmax=1, cmap="Blues")
    axes[0].set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_title("Overlap of selections (Jaccard)")
    figure.colorbar(shown, ax=axes[0])
    return leave(folder, found, f"{told}\n{_told(found)}", figure)


def _selections(lvlm: LVLM, plan: Plan, methods: Sequence[Method], folder: Path, advance: Advance) -> list[Record]:
    """Which tokens each method selects; a record a question."""
    task = first_groups(plan.task, OVERLAPS)
    told: dict[str, Any] = {"questions": task.digest, "model": plan.model, "weights": fingerprint(lvlm.model)}
    told |= {"methods": {method.name: method.settings() for method in methods}}
    open_run(folder, told, environment(lvlm.model))
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


def overlap(records: Sequence[Record], alike: int, *, seed: int) -> dict[str, Any]:
    """How much the selections under K instructions have in common.

    Args:
        records: of a question each: image, tokens (how many), selected (K lists of indices).
        alike: how many of the K are paraphrases; they come first.

    Returns:
        "jaccard" (K, K), means over questions; two empty selections are equal. "paraphrases", "unrelated" and "across":
        [mean over the pairs of that kind, 95 % interval over images]; "chance", the same of all pairs for random
        selections of the same sizes, from the numbers expected in both and in either.
    """
    images = [record["image"] for record in records]
    pairs = np.triu_indices(len(records[0]["selected"]), k=1)
    each, chance = [], []
    for record in records:
        chosen = np.zeros((len(record["selected"]), record["tokens"]))
        for row, indices in zip(chosen, record["selected"], strict=True):
            row[indices] = 1
        sizes = chosen.sum(axis=1)
        each.append(_jaccard(chosen @ chosen.T, sizes))
        chance.append(_jaccard(np.outer(sizes, sizes) / record["tokens"], sizes)[pairs].mean())
    first, second = pairs
    matrices = np.stack(each)
    kinds = {
        "paraphrases": second < alike,
        "across": (first < alike) & (second >= alike),
        "unrelated": first >= alike,
    }
    found: dict[str, Any] = {"jaccard": matrices.mean(axis=0).tolist(), "chance": _mean(np.array(chance), images, seed)}
    for kind, held in kinds.items():
        found[kind] = _mean(matrices[:, first[held], second[held]].mean(axis=1), images, seed)
    return found


def _jaccard(both: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    either = sizes[:, None] + sizes - both
    return np.divide(both, either, out=np.ones_like(both), where=either > 0)


def _mean(values: np.ndarray, images: Sequence[str], seed: int) -> list[Any]:
    rows = np.stack([values, np.ones_like(values)], axis=1)
    return [float(values.mean()), list(bootstrap(rows, images, lambda s: s[:, 0] / s[:, 1], seed=seed))]


def _told(found: Mapping[str, Any]) -> str:
    spread = found["spread"]
    note = (
        f"Jaccard's index in percent, 95 % intervals over images, {OVERLAPS} at most. Accuracy over the "
        f"{len(found['generals'])} instructions: {number('', spread['lowest'])} to {number('', spread['highest'])}, "
        f"standard deviation {100 * spread['std']:.2f} points."
    )
    values = [(text, found["overlap"][kind]) for kind, text in _KINDS.items()]
    lines = [Line(text, [Cell(number("", value), pair("", limits))]) for text, (value, limits) in values]
    texts = "".join(f"- {name}: “{text}”\n" for name, text in found["generals"].items())
    return markdown(Table("Overlap of selections", ["Jaccard"], lines, note, head="Between")) + "\n" + texts
