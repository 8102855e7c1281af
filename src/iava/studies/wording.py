"""How much does the wording of the general instruction matter? Ten wordings, and means over several.

Selections are compared by their Jaccard index: the number of tokens in both selections over the number in either.
Answers are compared by accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iava.benchmarks.task import first_groups
from iava.evaluation.environment import environment, fingerprint
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, open_run
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.metrics.parts import Record
from iava.reporting.formatting import format_value
from iava.reporting.plots import panels
from iava.reporting.renderers import markdown
from iava.reporting.tables import Table, TableRow, value_cell
from iava.studies.ablate import PARAPHRASES, UNRELATED
from iava.studies.compare import compare_methods, mean_and_interval, write_study
from iava.studies.variants import MeanGeneral

OVERLAP_IMAGES = 20
"""Selections are compared on the questions about this many images."""
_COMPARED = {
    "paraphrases": "Two paraphrases",
    "across": "A paraphrase and an unrelated one",
    "unrelated": "Two unrelated ones",
    "chance": "Random selections of the same sizes",
}


def run_wording_study(
    lvlm: LVLM,
    plan: Plan,
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    paraphrases: Sequence[str] = PARAPHRASES,
    unrelated: Sequence[str] = UNRELATED,
) -> dict[str, Any]:
    """Measures IAVA under each general instruction, and writes results.json, table.md and plot.png.

    Args:
        plan: of "greedy" and "iava". The settings of the latter stay fixed except for the general instruction.
        paraphrases, unrelated: at least two general instructions each. The first paraphrase is the reference.

    Returns:
        See `compare_methods`; also "generals", the instructions by name; "spread", lowest and highest accuracy and the
        standard deviation over instructions; and "overlap", see `selection_overlap`.

    Raises:
        IavaError: see `iava.evaluation.runner.evaluate`.
    """
    generals = {f"paraphrase {n}": text for n, text in enumerate(paraphrases, start=1)}
    generals |= {f"unrelated {n}": text for n, text in enumerate(unrelated, start=1)}
    instructions = {name: [text] for name, text in generals.items()}
    instructions |= {"mean of paraphrases": list(paraphrases), "mean of all": [*paraphrases, *unrelated]}
    variants: list[Method] = [
        MeanGeneral(name, texts, **plan.methods["iava"]).bind(lvlm.model, lvlm.processor)
        for name, texts in instructions.items()
    ]
    reference, heading = next(iter(generals)), "The wording of the general instruction"
    greedy_plan = replace(plan, methods={"greedy": {}})
    results, table = compare_methods(
        lvlm, greedy_plan, folder, advance, reference=reference, heading=heading, variants=variants
    )
    records = _selections(lvlm, plan, variants[: len(generals)], folder / "overlap", advance)
    accuracies = [outcome["metrics"]["accuracy"] for outcome in results["outcomes"] if outcome["method"] in generals]
    results |= {
        "generals": generals,
        "spread": {"lowest": min(accuracies), "highest": max(accuracies), "std": float(np.std(accuracies, ddof=1))},
        "overlap": selection_overlap(records, len(paraphrases), seed=plan.seed),
    }
    figure = _overlap_figure(results["overlap"]["jaccard"], list(generals))
    return write_study(folder, results, f"{table}\n{_overlap_table(results)}", figure)


def _selections(lvlm: LVLM, plan: Plan, methods: Sequence[Method], folder: Path, advance: Advance) -> list[Record]:
    """The tokens that each method selects, in one record for each question."""
    task = first_groups(plan.task, OVERLAP_IMAGES)
    settings: dict[str, Any] = {"questions": task.digest, "model": plan.model, "weights": fingerprint(lvlm.model)}
    settings |= {"methods": {method.name: method.settings() for method in methods}}
    open_run(folder, settings, environment(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["image"] for record in records.rows}
    advance("overlap of selections", len(done), len(task.images))
    for image in task.images:
        if image in done:
            continue
        questions = list(dict.fromkeys(q.question for q in task.questions if q.image == image))
        session = lvlm.read(task.open_image(image))
        rows: list[Record] = [{"image": image, "question": question, "selected": []} for question in questions]
        for method in methods:
            answers = session.ask_many(questions, method=method, max_new_tokens=1, explain=True)
            for row, answer in zip(rows, answers, strict=True):
                assert answer.explanation is not None
                assert answer.explanation.selected is not None
                row["selected"].append(answer.explanation.selected.nonzero().flatten().tolist())
                row["tokens"] = len(answer.explanation.selected)
        records.append(rows)
        done.add(image)
        advance("overlap of selections", len(done), len(task.images))
    return records.rows


def selection_overlap(records: Sequence[Record], paraphrases: int, *, seed: int) -> dict[str, Any]:
    """The overlap of the selections under K general instructions.

    Args:
        records: one for each question, with "image", "tokens" (their number) and "selected" (K lists of indices).
        paraphrases: how many of the K instructions, counted from the first, are paraphrases.
        seed: bootstrap seed.

    Returns:
        "jaccard", the (K, K) mean over questions, where two empty selections count as equal; "paraphrases",
        "unrelated" and "across", each the mean over the pairs of that kind with its 95 % interval over images; and
        "chance", the same over all pairs for random selections of the same sizes.
    """
    images = [record["image"] for record in records]
    pairs = np.triu_indices(len(records[0]["selected"]), k=1)
    matrices, chance = [], []
    for record in records:
        masks = np.zeros((len(record["selected"]), record["tokens"]))
        for mask, indices in zip(masks, record["selected"], strict=True):
            mask[indices] = 1
        sizes = masks.sum(axis=1)
        matrices.append(_jaccard(masks @ masks.T, sizes))
        chance.append(_jaccard(np.outer(sizes, sizes) / record["tokens"], sizes)[pairs].mean())
    first, second = pairs
    kinds = {
        "paraphrases": second < paraphrases,
        "across": (first < paraphrases) & (second >= paraphrases),
        "unrelated": first >= paraphrases,
    }
    stacked = np.stack(matrices)
    overlap: dict[str, Any] = {"jaccard": stacked.mean(axis=0).tolist()}
    for kind, chosen in kinds.items():
        means = stacked[:, first[chosen], second[chosen]].mean(axis=1)
        overlap[kind] = list(mean_and_interval(means, images, seed=seed))
    return overlap | {"chance": list(mean_and_interval(chance, images, seed=seed))}


def _jaccard(intersections: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    unions = sizes[:, None] + sizes - intersections
    return np.divide(intersections, unions, out=np.ones_like(intersections), where=unions > 0)


def _overlap_table(results: Mapping[str, Any]) -> str:
    spread = results["spread"]
    note = (
        f"Jaccard index in percent, 95 % intervals over images, at most {OVERLAP_IMAGES} images. Accuracy over the "
        f"{len(results['generals'])} instructions: {format_value('accuracy', spread['lowest'])} to "
        f"{format_value('accuracy', spread['highest'])}, standard deviation {100 * spread['std']:.2f} points."
    )
    rows = [TableRow(text, [value_cell("jaccard", *results["overlap"][kind])]) for kind, text in _COMPARED.items()]
    texts = "".join(f"- {name}: “{text}”\n" for name, text in results["generals"].items())
    return markdown(Table("Overlap of selections", ["Jaccard"], rows, note, name_heading="Between")) + "\n" + texts


def _overlap_figure(jaccard: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    figure, (panel,) = panels(1, 1, width=6, height=5)
    image = panel.imshow(np.array(jaccard), vmin=0, vmax=1, cmap="Blues")
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right")
    panel.set_yticks(range(len(names)), names)
    panel.set_title("Overlap of selections (Jaccard index)")
    figure.colorbar(image, ax=panel)
    return figure
