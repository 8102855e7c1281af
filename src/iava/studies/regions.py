"""Does the selection miss the answer's region? Where the selected tokens and the attention lie, by layer and head.

About things that a picture shows it is asked whether they are there; their boxes are known. A token is inside if the
middle of what it looks at is. A selection that knew nothing would have as much of itself inside as the boxes have of
the picture: that is the chance with which its share inside is compared.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from iava.benchmarks.pope import wording
from iava.benchmarks.sources.coco import read_instances
from iava.benchmarks.sources.files import check_images
from iava.benchmarks.task import Question, Region, Task, first_groups
from iava.errors import IavaError
from iava.evaluation.environment import environment, fingerprint
from iava.evaluation.records import Records, open_run
from iava.evaluation.runner import Advance
from iava.lvlm.answers import Explanation
from iava.lvlm.images import read_image
from iava.lvlm.model import LVLM
from iava.methods.select import select_irrelevant
from iava.metrics.parts import Record
from iava.metrics.stats import by_cluster, interval, resampled
from iava.reporting.formatting import number, pair
from iava.reporting.plots import OURS, REFERENCE, panels, save
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Line, Table
from iava.studies.compare import leave

PER_IMAGE = 3
"""Kinds of things that are asked about, an image at most."""
SAMPLES = 10
_SHOWN = 8
"""So many heads are in the table."""
_COLUMNS = {
    "inside": "Selected inside",
    "chance": "By chance",
    "times_chance": "Times chance",
    "general": "General attention inside",
    "query": "Query attention inside",
    "query_over_general": "Query / general",
}
_QUOTIENTS = ("times_chance", "query_over_general")


def coco_task(instances: Path, images: Path, *, limit: int | None = None, seed: int = 42) -> Task:
    """Questions about what is in images, with boxes from annotations as COCO has them (see `read_instances`).

    Raises:
        IavaError: if the file is broken or has no boxes, or one of the images is missing from the folder.
    """
    annotated = read_instances(instances)
    questions = []
    for image, kinds in annotated.boxes.items():
        drawn = random.Random(f"{seed} {image}").sample(sorted(kinds), min(PER_IMAGE, len(kinds)))
        questions += [
            Question(f"{image}-{kind}", (image,), "there", wording(kind), "yes", kinds[kind]) for kind in drawn
        ]
    if not questions:
        raise IavaError(f"{instances} has no boxes: its annotations must have 'bbox'")
    files = annotated.files
    task = Task("regions", instances.name, questions, lambda image: read_image(images / files[image]))
    task = first_groups(task, limit)
    check_images(((str(instances), files[image]) for image in task.images), images)
    return task


def asked(task: Task) -> dict[str, list[Question]]:
    """Image -> its questions about what is there, each once, whose boxes are known.

    Raises:
        IavaError: if there are none.
    """
    found: dict[str, dict[str, Question]] = {}
    for question in task.questions:
        if question.truth == "yes" and question.region:
            found.setdefault(question.image, {}).setdefault(question.question, question)
    if not found:
        raise IavaError(f"{task.benchmark} does not say where things are: give --instances and --images")
    return {image: list(questions.values()) for image, questions in found.items()}


def regions(
    lvlm: LVLM,
    task: Task,
    settings: Mapping[str, Any],
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    model: str,
    seed: int = 42,
) -> dict[str, Any]:
    """Measures, or goes on, and leaves results.json, table.md, plot.png and samples.png in the folder.

    Args:
        task: see `asked`.
        settings: of IAVA; alpha and the like do not matter, because it is the first token before which it looks.
        model: its name.
        seed: of the intervals and the samples.

    Returns:
        What is in the JSON: "questions" and "images" (how many), "area" of the boxes (mean share of the tokens),
        "shape" (layers, heads), "attention": what `summary` says, and "manifest".

    Raises:
        IavaError: if it is not known where things are or where the model's image tokens look, or the folder cannot
            be used.
    """
    by_image = asked(task)
    method = lvlm.method("iava", **settings)
    told = {"study": "regions", "split": task.split, "questions": task.digest, "images": len(by_image), "seed": seed}
    told |= {"model": model, "weights": fingerprint(lvlm.model), "method": method.settings()}
    manifest = open_run(folder, told, environment(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["image"] for record in records.rows}
    advance("regions", len(done), len(by_image))
    for image, questions in by_image.items():
        if image not in done:
            seen = _explained(lvlm, method, task.open_image(image), questions)
            records.append([_record(*both, method.settings()) for both in zip(questions, seen, strict=True)])
            done.add(image)
            advance("regions", len(done), len(by_image))
    drawn = sorted(random.Random(seed).sample(sorted(by_image), min(SAMPLES, len(by_image))))
    _show_samples(lvlm, method, [(task.open_image(image), by_image[image][0]) for image in drawn], folder)
    config = lvlm.model.config.get_text_config()
    shape = config.num_hidden_layers, config.num_attention_heads
    found = {
        "questions": len(records.rows),
        "images": len(by_image),
        "area": float(np.mean([record["area"] for record in records.rows])),
        "shape": list(shape),
        "attention": summary(records.rows, names(*shape), seed=seed),
        "manifest": manifest,
    }
    return leave(folder, found, _told(found), _drawn(found))


def _explained(lvlm: LVLM, method: Any, picture: Image.Image, questions: Sequence[Question]) -> list[Explanation]:
    wordings = [question.question for question in questions]
    answers = lvlm.ask_many(picture, wordings, method=method, max_new_tokens=1, explain=True)
    explanations = [answer.explanation for answer in answers if answer.explanation is not None]
    if any(explanation.boxes is None for explanation in explanations):
        kind = lvlm.model.config.model_type
        raise IavaError(f"it is not known where {kind}'s image tokens look: use a model whose are patches")
    return explanations


def names(layers: int, heads: int) -> list[str]:
    """Whose attention is measured: the mean that IAVA takes, each layer's mean, each head's."""
    each = [f"layer {n}, head {h}" for n in range(layers) for h in range(heads)]
    return ["chosen layers", *(f"layer {n}" for n in range(layers)), *each]


def inside(boxes: np.ndarray, region: Region) -> np.ndarray:
    """Which tokens look at a region: (N, 4) rectangles -> (N,) bool, True if the middle lies in one of its boxes."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    within = [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in region]
    return np.logical_or.reduce([np.zeros(len(boxes), dtype=bool), *within])


def _record(question: Question, seen: Explanation, settings: Mapping[str, Any]) -> Record:
    """For each of `names` how many tokens are selected, how many of them inside, and both attentions' share inside."""
    maps = [
        torch.cat([mean[None], layers, heads.flatten(0, 1)])
        for mean, layers, heads in (
            (seen.att_general, seen.layers_general, seen.heads_general),
            (seen.att_query, seen.layers_query, seen.heads_query),
        )
        if mean is not None and layers is not None and heads is not None
    ]
    assert seen.boxes is not None
    here = torch.from_numpy(inside(seen.boxes, question.region or ()))
    chosen = select_irrelevant(*maps, top_i=settings["top_i"], lam=settings["lam"])
    general, query = ((part * here).sum(dim=1) / part.sum(dim=1).clamp(min=1e-12) for part in maps)
    return {
        "id": question.id,
        "image": question.image,
        "area": float(here.double().mean()),
        "selected": chosen.sum(dim=1).tolist(),
        "inside": (chosen & here).sum(dim=1).tolist(),
        "general": [round(value, 6) for value in general.tolist()],
        "query": [round(value, 6) for value in query.tolist()],
    }


def summary(records: Sequence[Record], of: Sequence[str], *, seed: int) -> dict[str, dict[str, Any]]:
    """All questions together.

    Args:
        records: of a question each: image, area, and for each of `of` selected, inside, general, query.
        of: names of whose attention it is.

    Returns:
        For each name values with their 95 % intervals over images, [value, [low, high]]: "inside", the share of all
        selected tokens that lie inside; "chance", the share that would if they lay anywhere; "times_chance", their
        quotient (all three None where nothing was selected); "general" and "query", the mean share of attention
        inside; "query_over_general", the quotient of these.
    """
    selected, within, general, query = (
        np.array([record[key] for record in records], dtype=float) for key in ("selected", "inside", "general", "query")
    )
    area = np.array([[record["area"]] for record in records])
    columns = np.stack([selected, within, selected * area, general, query, np.ones_like(selected)], axis=-1)
    sums = by_cluster(columns.reshape(len(records), -1), [record["image"] for record in records])
    draws = _shares(resampled(sums, seed=seed).reshape(-1, *columns.shape[1:]))
    total = _shares(columns.sum(axis=0)[None])
    return {
        name: {
            key: [float(total[key][0, n]), list(interval(draws[key][:, n]))] if np.isfinite(total[key][0, n]) else None
            for key in _COLUMNS
        }
        for n, name in enumerate(of)
    }


def _shares(sums: np.ndarray) -> dict[str, np.ndarray]:
    selected, within, chance, general, query, one = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "inside": within / selected,
            "chance": chance / selected,
            "times_chance": within / chance,
            "general": general / one,
            "query": query / one,
            "query_over_general": query / general,
        }


def _told(found: Mapping[str, Any]) -> str:
    layers, heads = found["shape"]
    every = names(layers, heads)
    by_query = sorted(every[1 + layers :], key=lambda name: -found["attention"][name]["query"][0])
    lines = [Line(name, _cells(found["attention"][name])) for name in every[: 1 + layers] + by_query[:_SHOWN]]
    told = found["manifest"]["settings"]
    settings = ", ".join(f"{key}={told['method'][key]}" for key in ("top_i", "lam", "layers"))
    note = (
        f"{told['split']}, {found['images']:,} images, {found['questions']:,} questions, model {told['model']}, "
        f"{settings}, seed {told['seed']}; the boxes have {number('', found['area'])} % of the tokens. Of "
        f"{layers * heads} heads the {min(_SHOWN, layers * heads)} with most query attention inside. Percent, "
        "quotients as they are; 95 % intervals over images."
    )
    heading = "Where the selected tokens and the attention lie"
    return markdown(Table(heading, list(_COLUMNS.values()), lines, note, head="Attention of"))


def _cells(values: Mapping[str, Any]) -> list[Cell]:
    def cell(name: str) -> Cell:
        if values[name] is None:
            return Cell("–")
        value, (low, high) = values[name]
        quotient = name in _QUOTIENTS
        return (
            Cell(f"{value:.2f}", f"[{low:.2f}, {high:.2f}]")
            if quotient
            else Cell(number("", value), pair("", (low, high)))
        )

    return [cell(name) for name in _COLUMNS]


def _drawn(found: Mapping[str, Any]) -> Figure:
    """For each head how many times chance is inside; chance is white."""
    layers, heads = found["shape"]
    figure, axes = panels(1, 3, width=3.4)
    shown = {"times_chance": "Selected tokens", "general": "General attention", "query": "Query attention"}
    for panel, (key, title) in zip(axes, shown.items(), strict=True):
        values = [found["attention"][name][key] for name in names(layers, heads)[1 + layers :]]
        times = np.array([np.nan if value is None else value[0] for value in values]).reshape(layers, heads)
        times = times if key == "times_chance" else times / found["area"]
        image = panel.imshow(np.log2(times.clip(0.125, 8)), cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
        panel.set(title=f"{title} inside,\ntimes chance", xlabel="head", ylabel="layer")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=axes, ticks=range(-3, 4))
    bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    return figure


def _show_samples(lvlm: LVLM, method: Any, samples: Sequence[tuple[Image.Image, Question]], folder: Path) -> None:
    """Of each picture what is asked about, both attentions and the selected tokens, side by side."""
    figure, axes = panels(-(-len(samples) // 2), 8, width=1.3, height=1.5)
    for panel in axes:
        panel.set_axis_off()
    for n, (picture, question) in enumerate(samples):
        (seen,) = _explained(lvlm, method, picture, [question])
        assert seen.boxes is not None
        assert seen.att_general is not None
        assert seen.att_query is not None
        assert seen.selected is not None
        most = torch.stack([seen.att_general, seen.att_query]).max()
        maps = {"general": seen.att_general / most, "query": seen.att_query / most, "selected": seen.selected.float()}
        row = axes[4 * n : 4 * n + 4]
        for panel, (title, weights) in zip(
            row, {question.question.removesuffix(" in the image?"): None, **maps}.items(), strict=True
        ):
            panel.imshow(picture)
            panel.set_title(title, fontsize=7, pad=2)
            if weights is not None:
                _shade(panel, seen.boxes, weights.tolist())
            for x0, y0, x1, y1 in question.region or ():
                panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=REFERENCE, linewidth=1.2))
    save(figure, folder / "samples.png")


def _shade(axes: Axes, boxes: np.ndarray, weights: Sequence[float]) -> None:
    for (x0, y0, x1, y1), weight in zip(boxes, weights, strict=True):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color=OURS, alpha=0.85 * weight**0.5, linewidth=0))
