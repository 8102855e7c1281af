"""Does the selection miss the region that answers? Selected tokens and attention inside it, by layer and head.

The questions ask whether an object is in the image, for objects that are and whose boxes are known. A token lies inside
if the centre of its rectangle does. By chance, the share of selected tokens inside equals the share of all tokens
inside.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from iava.methods.base import Method
from iava.methods.select import select_irrelevant
from iava.metrics.parts import Record
from iava.metrics.stats import by_cluster, interval, resampled
from iava.reporting.formatting import format_value
from iava.reporting.plots import save_figure
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Table, TableRow, value_cell
from iava.studies.compare import write_study
from iava.studies.region_plots import RegionSample, heads_figure, samples_figure

QUESTIONS_PER_IMAGE = 3
"""The largest number of object classes that are asked about for an image of COCO."""
SAMPLES = 10
_HEADS_SHOWN = 8
"""The number of heads in the table."""
_REGION_HEADINGS = {
    "inside": "Selected inside",
    "chance": "By chance",
    "times_chance": "Times chance",
    "general": "General attention inside",
    "query": "Query attention inside",
    "query_over_general": "Query / general",
}
_RATIOS = ("times_chance", "query_over_general")


def coco_task(instances: Path, images: Path, *, limit: int | None = None, seed: int = 42) -> Task:
    """Questions about objects in images, with boxes from annotations in COCO's format (see `read_instances`).

    Raises:
        IavaError: if the file is broken or has no boxes, or an image is missing from the folder.
    """
    annotated = read_instances(instances)
    questions = []
    for image, boxes in annotated.boxes.items():
        names = random.Random(f"{seed} {image}").sample(sorted(boxes), min(QUESTIONS_PER_IMAGE, len(boxes)))
        questions += [
            Question(f"{image}-{name}", (image,), "there", wording(name), "yes", boxes[name]) for name in names
        ]
    if not questions:
        raise IavaError(f"{instances} has no boxes: its annotations must have 'bbox'")
    files = annotated.files
    task = Task("regions", instances.name, questions, lambda image: read_image(images / files[image]))
    task = first_groups(task, limit)
    check_images(((str(instances), files[image]) for image in task.images), images)
    return task


def region_questions(task: Task) -> dict[str, list[Question]]:
    """For each image the distinct questions whose truth is yes and whose region is known.

    Raises:
        IavaError: if there are none.
    """
    by_image: dict[str, dict[str, Question]] = {}
    for question in task.questions:
        if question.truth == "yes" and question.region:
            by_image.setdefault(question.image, {}).setdefault(question.question, question)
    if not by_image:
        raise IavaError(f"{task.benchmark} does not say where objects are: give --instances and --images")
    return {image: list(questions.values()) for image, questions in by_image.items()}


def run_regions_study(
    lvlm: LVLM,
    task: Task,
    settings: Mapping[str, Any],
    folder: Path,
    advance: Advance = lambda *_: None,
    *,
    model: str,
    seed: int = 42,
) -> dict[str, Any]:
    """Measures the selections, and writes results.json, table.md, plot.png and samples.png. Continues a stopped study.

    Args:
        task: see `region_questions`.
        settings: of IAVA. Settings of the contrast have no effect, because only the selection is measured.
        model: the model's name.
        seed: of the intervals and the choice of samples.

    Returns:
        The content of results.json: "questions" and "images" (counts); "area", the mean share of tokens inside;
        "shape" (layers, heads); "attention", see `summarize`; and "manifest".

    Raises:
        IavaError: if the regions or the positions of the model's image tokens are unknown, or the folder cannot be
            used.
    """
    by_image = region_questions(task)
    method = lvlm.method("iava", **settings)
    run = {"study": "regions", "split": task.split, "questions": task.digest, "images": len(by_image), "seed": seed}
    run |= {"model": model, "weights": fingerprint(lvlm.model), "method": method.settings()}
    manifest = open_run(folder, run, environment(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["image"] for record in records.rows}
    advance("regions", len(done), len(by_image))
    for image, questions in by_image.items():
        if image not in done:
            explanations = _explanations(lvlm, method, task.open_image(image), questions)
            pairs = zip(questions, explanations, strict=True)
            records.append([_region_record(*pair, method.settings()) for pair in pairs])
            done.add(image)
            advance("regions", len(done), len(by_image))
    _save_samples(lvlm, method, task, by_image, folder, seed)
    config = lvlm.model.config.get_text_config()
    shape = config.num_hidden_layers, config.num_attention_heads
    results = {
        "questions": len(records.rows),
        "images": len(by_image),
        "area": float(np.mean([record["area"] for record in records.rows])),
        "shape": list(shape),
        "attention": summarize(records.rows, map_names(*shape), seed=seed),
        "manifest": manifest,
    }
    return write_study(folder, results, _regions_table(results), heads_figure(results, map_names(*shape)))


def _explanations(lvlm: LVLM, method: Method, image: Image.Image, questions: Sequence[Question]) -> list[Explanation]:
    texts = [question.question for question in questions]
    answers = lvlm.ask_many(image, texts, method=method, max_new_tokens=1, explain=True)
    explanations = [answer.explanation for answer in answers if answer.explanation is not None]
    if any(explanation.boxes is None for explanation in explanations):
        family = lvlm.model.config.model_type
        raise IavaError(
            f"the positions of {family}'s image tokens are unknown: use a model whose image tokens are patches"
        )
    return explanations


def _save_samples(
    lvlm: LVLM, method: Method, task: Task, by_image: Mapping[str, Sequence[Question]], folder: Path, seed: int
) -> None:
    samples = []
    for name in sorted(random.Random(seed).sample(sorted(by_image), min(SAMPLES, len(by_image)))):
        image, question = task.open_image(name), by_image[name][0]
        (explanation,) = _explanations(lvlm, method, image, [question])
        samples.append(RegionSample(image, question, explanation))
    save_figure(samples_figure(samples), folder / "samples.png")


def map_names(layers: int, heads: int) -> list[str]:
    """Names of the attention maps: the mean over the chosen layers, each layer's mean, and each head."""
    each = [f"layer {n}, head {h}" for n in range(layers) for h in range(heads)]
    return ["chosen layers", *(f"layer {n}" for n in range(layers)), *each]


def tokens_inside(boxes: np.ndarray, region: Region) -> np.ndarray:
    """The tokens inside a region: (N, 4) rectangles -> (N,) bool, True if the centre lies in a box of the region."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    within = [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in region]
    return np.logical_or.reduce([np.zeros(len(boxes), dtype=bool), *within])


def _region_record(question: Question, explanation: Explanation, settings: Mapping[str, Any]) -> Record:
    """For each attention map the number of selected tokens, of those inside, and the shares of attention inside."""
    general, query = (
        torch.cat([mean[None], layers, heads.flatten(0, 1)])
        for mean, layers, heads in (
            (explanation.att_general, explanation.layers_general, explanation.heads_general),
            (explanation.att_query, explanation.layers_query, explanation.heads_query),
        )
        if mean is not None and layers is not None and heads is not None
    )
    assert explanation.boxes is not None
    inside = torch.from_numpy(tokens_inside(explanation.boxes, question.region or ()))
    selected = select_irrelevant(general, query, top_i=settings["top_i"], lam=settings["lam"])
    shares = {
        name: (attention * inside).sum(dim=1) / attention.sum(dim=1).clamp(min=1e-12)
        for name, attention in (("general", general), ("query", query))
    }
    return {
        "id": question.id,
        "image": question.image,
        "area": float(inside.double().mean()),
        "selected": selected.sum(dim=1).tolist(),
        "inside": (selected & inside).sum(dim=1).tolist(),
        **{name: [round(value, 6) for value in share.tolist()] for name, share in shares.items()},
    }


def summarize(records: Sequence[Record], names: Sequence[str], *, seed: int) -> dict[str, dict[str, Any]]:
    """Totals over all questions, for each attention map.

    Args:
        records: one for each question, with "image", "area", and lists "selected", "inside", "general" and "query" with
            a value for each map.
        names: names of the maps.
        seed: bootstrap seed.

    Returns:
        For each map values with their 95 % intervals over images, [value, [low, high]]: "inside", the share of selected
        tokens that lie inside; "chance", that share if the tokens were random; "times_chance", the ratio of both (all
        three None if nothing was selected); "general" and "query", the mean share of attention inside; and
        "query_over_general", the ratio of these.
    """
    selected, inside, general, query = (
        np.array([record[key] for record in records], dtype=float) for key in ("selected", "inside", "general", "query")
    )
    area = np.array([[record["area"]] for record in records])
    columns = np.stack([selected, inside, selected * area, general, query, np.ones_like(selected)], axis=-1)
    sums = by_cluster(columns.reshape(len(records), -1), [record["image"] for record in records])
    draws = _region_shares(resampled(sums, seed=seed).reshape(-1, *columns.shape[1:]))
    total = _region_shares(columns.sum(axis=0)[None])
    return {
        name: {
            key: [float(total[key][0, n]), list(interval(draws[key][:, n]))] if np.isfinite(total[key][0, n]) else None
            for key in _REGION_HEADINGS
        }
        for n, name in enumerate(names)
    }


def _region_shares(sums: np.ndarray) -> dict[str, np.ndarray]:
    selected, inside, chance, general, query, count = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "inside": inside / selected,
            "chance": chance / selected,
            "times_chance": inside / chance,
            "general": general / count,
            "query": query / count,
            "query_over_general": query / general,
        }


def _regions_table(results: Mapping[str, Any]) -> str:
    layers, heads = results["shape"]
    names = map_names(layers, heads)
    by_query = sorted(names[1 + layers :], key=lambda name: -results["attention"][name]["query"][0])
    shown = names[: 1 + layers] + by_query[:_HEADS_SHOWN]
    rows = [TableRow(name, _region_cells(results["attention"][name])) for name in shown]
    run = results["manifest"]["settings"]
    settings = ", ".join(f"{key}={run['method'][key]}" for key in ("top_i", "lam", "layers"))
    note = (
        f"{run['split']}, {results['images']:,} images, {results['questions']:,} questions, model {run['model']}, "
        f"{settings}, seed {run['seed']}. The boxes contain {format_value('area', results['area'])} % of the tokens. "
        f"The table lists {min(_HEADS_SHOWN, layers * heads)} of {layers * heads} heads, those with the most query "
        "attention inside. Percent, or ratios; 95 % intervals over images."
    )
    heading = "Selected tokens and attention inside the region"
    return markdown(Table(heading, list(_REGION_HEADINGS.values()), rows, note, name_heading="Attention of"))


def _region_cells(values: Mapping[str, Any]) -> list[Cell]:
    cells = []
    for name in _REGION_HEADINGS:
        if values[name] is None:
            cells.append(Cell("–"))
        elif name in _RATIOS:
            value, (low, high) = values[name]
            cells.append(Cell(f"{value:.2f}", f"[{low:.2f}, {high:.2f}]", value))
        else:
            cells.append(value_cell(name, *values[name]))
    return cells
