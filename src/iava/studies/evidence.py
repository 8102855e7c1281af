"""Which view of an image is worth contrasting with, where evidence is weak? And what does a repair give?

Each question is read under many views of its image. A view's margin m(view) is the logit of "yes" minus that of "no".
All else follows from the margins: the view read alone; the contrast m(image) - a m(view) with a = alpha / (1 + alpha);
the contrast that is centred on the text, m(image) - a (m(view) - m(text)); and the contrast of unsure answers only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iava.engine.branch import Branch
from iava.engine.images.degrade import DEGRADATIONS
from iava.engine.images.pixels import changed, each_image, pixel_values, with_pixels
from iava.engine.images.restore import fineness
from iava.engine.negatives import negative_image, text_only
from iava.engine.prompt import Prompt, pack
from iava.evaluation.environment import environment, fingerprint
from iava.evaluation.plan import Plan
from iava.evaluation.records import Records, open_run
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.controls_restore import Restore
from iava.methods.iava import IAVA
from iava.methods.vcd import diffused
from iava.methods.words import yes_no_logits
from iava.metrics.parts import Record
from iava.metrics.shift import at_best_threshold
from iava.metrics.stats import auc, auc_difference
from iava.reporting.plots import panels, plot_estimates
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Table, TableRow, difference_cell, value_cell
from iava.studies.compare import write_study

WORSE = {
    **{f"blur {strength:g}": ("blur", strength) for strength in (0.005, 0.01, 0.02)},
    "low resolution 0.04": ("lowres", 0.04),
    "fog 0.3": ("fog", 0.3),
}
"""Name of a view -> kind and strength, see `iava.engine.images.degrade`."""
NOISE_VIEWS = {f"noise, step {step}": step for step in (300, 500)}
"""Name of a view -> step, see `iava.methods.vcd.VCD`."""
PARTS = ("attended blurred", "unattended blurred")
"""Views in which only the patches outside IAVA's selection, or only those inside it, are blurred."""
VIEWS = ("image", *WORSE, *NOISE_VIEWS, *PARTS, "restored", "text")
SHARES = (0.1, 0.25, 0.5, 0.75)
"""Values of a that are tried."""
_PART_BLUR = 0.01


class Views(IAVA):
    """Greedy decoding that notes the logits under each view of `VIEWS`. It selects the tokens as IAVA does."""

    name = "views"
    reads_pixels = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.seen: list[torch.Tensor] = []
        self.fineness: list[float] = []

    def branches(self, prompt: Prompt) -> list[Branch]:
        super().branches(prompt)
        selected = prompt.reading["selected"]
        _, valid = pack(prompt.is_image)
        restore = Restore(self.processor)

        def noisy(step: int) -> Branch:
            images = [diffused(image, step, seed=0).flatten() for image in each_image(prompt)]
            return with_pixels(prompt, torch.cat(images).view_as(pixel_values(prompt)))

        def worse(kind: str, strength: float) -> Branch:
            return with_pixels(prompt, changed(prompt, lambda images: DEGRADATIONS[kind](images, strength)))

        def note(images: torch.Tensor) -> torch.Tensor:
            self.fineness += fineness(images).tolist()
            return images

        changed(prompt, note)
        kept = (selected, valid & ~selected)
        return [
            *(worse(*how) for how in WORSE.values()),
            *(noisy(step) for step in NOISE_VIEWS.values()),
            *(negative_image("blur", prompt, keep, _PART_BLUR) for keep in kept),
            *restore.branches(prompt),
            text_only(prompt),
        ]

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        self.seen += [main, *contrast_logits]
        return main


def run_evidence_study(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Reads all questions under all views, and writes results.json, table.md and plot.png.

    Args:
        plan: of "iava", whose settings select tokens.

    Returns:
        "outcomes", see `view_outcomes`; "greedy", its AUC and accuracy; "fineness", the least, the median and the
        largest of the images; and "manifest".

    Raises:
        IavaError: if the folder cannot be used, or the model's image tokens are no patches of a grid.
    """
    task = plan.task
    settings: dict[str, Any] = {"questions": task.digest, "model": plan.model, "weights": fingerprint(lvlm.model)}
    settings |= {"views": list(VIEWS)}
    settings |= {"iava": dict(plan.methods["iava"]), "split": task.split, "limit": plan.limit, "seed": plan.seed}
    manifest = open_run(folder, settings, environment(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["image"] for record in records.rows}
    for number, image in enumerate(task.images, start=1):
        if image not in done:
            records.append(_measure_image(lvlm, plan, image))
        advance("views", number, len(task.images))
    rows = records.rows
    greedy = _view_margins(rows, "image")
    right = np.array([row["truth"] == "yes" for row in rows])
    limits = [float(value) for value in np.quantile([row["fineness"] for row in rows], [0, 0.5, 1])]
    results: dict[str, Any] = {
        "outcomes": view_outcomes(rows, seed=plan.seed),
        "greedy": {"auc": auc(greedy.tolist(), _truths(rows)), "accuracy": float(((greedy > 0) == right).mean())},
        "fineness": limits,
        "manifest": manifest,
    }
    note = (
        f"{plan.benchmark}, {task.split}, {len(task.images):,} images, {len(rows):,} questions, model {plan.model}, "
        f"seed {plan.seed}. Percent and percentage points, with 95 % intervals over images. Greedy decoding: AUC "
        f"{100 * (results['greedy']['auc'] or 0):.1f}, accuracy {100 * results['greedy']['accuracy']:.1f}. For each "
        f"view the share a with the best AUC. Fineness of the images: {limits[0]:.2f} to {limits[2]:.2f}, median "
        f"{limits[1]:.2f}."
    )
    table = markdown(Table("Views of the image", HEADINGS, [_view_row(one) for one in results["outcomes"]], note))
    return write_study(folder, results, table, _figure(results))


def _measure_image(lvlm: LVLM, plan: Plan, image: str) -> list[Record]:
    questions = [question for question in plan.task.questions if question.image == image]
    wordings = list(dict.fromkeys(question.question for question in questions))
    views = Views(**plan.methods["iava"])
    lvlm.ask_many(plan.task.open_image(image), wordings, method=views, max_new_tokens=1)
    pairs = [yes_no_logits(logits, lvlm.processor.tokenizer) for logits in views.seen]
    found = dict(zip(VIEWS, ((pair[:, 0] - pair[:, 1]).tolist() for pair in pairs), strict=True))
    return [
        {"id": question.id, "image": image, "question": question.question, "truth": question.truth}
        | {"fineness": float(np.mean(views.fineness))}
        | {"margins": {view: values[wordings.index(question.question)] for view, values in found.items()}}
        for question in questions
    ]


def view_outcomes(rows: Sequence[Record], *, seed: int) -> list[dict[str, Any]]:
    """What each view is worth, alone and in a contrast.

    Args:
        rows: one for each question, with "image", "truth" and "margins" under `VIEWS`.
        seed: bootstrap seed.

    Returns:
        A dict for each view but the image with "view"; "alone", its AUC and accuracy; "share", the a with the best AUC
        of the contrast; and at that share "auc", "gain" (its difference from greedy decoding's, with its interval),
        "accuracy", "best" (the difference at the best thresholds, with its interval), "centred" and "unsure", the
        accuracy of the centred contrast, and of the contrast where it changes only the half of the answers that greedy
        decoding is least sure of.
    """
    truths, images = _truths(rows), [row["image"] for row in rows]
    is_yes = np.array(truths) == "yes"
    greedy, text = _view_margins(rows, "image"), _view_margins(rows, "text")
    is_unsure = np.abs(greedy) < np.median(np.abs(greedy))

    def accuracy(margins: np.ndarray) -> float:
        return float(((margins > 0) == is_yes).mean())

    def ranks(margins: np.ndarray) -> float:
        return auc(margins.tolist(), truths) or 0.0

    outcomes = []
    for view in VIEWS[1:]:
        own = _view_margins(rows, view)
        share = SHARES[int(np.argmax([ranks(greedy - a * own) for a in SHARES]))]
        contrast = greedy - share * own
        _, more, limits = at_best_threshold(contrast.tolist(), greedy.tolist(), truths, images, seed=seed)
        outcomes.append(
            {
                "view": view,
                "alone": [ranks(own), accuracy(own)],
                "share": share,
                "auc": ranks(contrast),
                "gain": list(auc_difference(contrast.tolist(), greedy.tolist(), truths, images, seed=seed)),
                "accuracy": accuracy(contrast),
                "best": [more, limits],
                "centred": accuracy(greedy - share * (own - text)),
                "unsure": accuracy(np.where(is_unsure, contrast, greedy)),
            }
        )
    return outcomes


def _truths(rows: Sequence[Record]) -> list[str]:
    return [row["truth"] for row in rows]


def _view_margins(rows: Sequence[Record], view: str) -> np.ndarray:
    return np.array([row["margins"][view] for row in rows])


HEADINGS = (
    *("AUC alone", "Accuracy alone", "a", "AUC of the contrast", "vs greedy", "Accuracy"),
    *("Best threshold, vs greedy's", "Centred", "Only where unsure"),
)


def _view_row(outcome: Mapping[str, Any]) -> TableRow:
    alone, right = outcome["alone"]
    cells = [
        value_cell("auc", alone, None),
        value_cell("accuracy", right, None),
        Cell(f"{outcome['share']:g}"),
        value_cell("auc", outcome["auc"], None),
        difference_cell("auc", *outcome["gain"]),
        value_cell("accuracy", outcome["accuracy"], None),
        difference_cell("accuracy", *outcome["best"]),
        value_cell("accuracy", outcome["centred"], None),
        value_cell("accuracy", outcome["unsure"], None),
    ]
    return TableRow(outcome["view"], cells)


def _figure(results: Mapping[str, Any]) -> Any:
    figure, axes = panels(1, 2, width=4.6, height=3.6)
    outcomes = results["outcomes"]
    labels = [one["view"] for one in outcomes]
    greedy = ("greedy", results["greedy"]["auc"], None)
    values = {"AUC of the view alone, %": [one["alone"][0] for one in outcomes]}
    values["AUC of the contrast, %"] = [one["auc"] for one in outcomes]
    for panel, (heading, aucs) in zip(axes, values.items(), strict=True):
        plot_estimates(panel, aucs, [None] * len(aucs), labels=labels, reference=greedy, joined=False)
        panel.set_title(heading)
    return figure
