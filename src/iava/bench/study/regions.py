"""Does the selection miss the answer's region? Where the selected tokens and the attention lie, by layer and head.

About things that a picture shows it is asked whether they are there; their boxes are known. A token is inside if the
middle of what it looks at is. A selection that knew nothing would have as much of itself inside as the boxes have of
the picture: that is the chance with which its share inside is compared.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from iava.bench.coco import read_instances
from iava.bench.layouts import check_images
from iava.bench.plots import OURS, REFERENCE, estimates, panels, save
from iava.bench.pope import Region, wording
from iava.bench.records import Record, Records, circumstances, fingerprint, open_run
from iava.bench.results import number, pair
from iava.bench.runner import Advance
from iava.bench.stats import Interval, by_cluster, interval, resampled
from iava.bench.study.outcome import leave
from iava.bench.tables import Cell, Line, Table
from iava.bench.task import Question, Task, first_images
from iava.bench.typeset import markdown
from iava.images import read_image
from iava.lvlm import LVLM, Explanation
from iava.methods.select import select_irrelevant
from iava.pocket.scenes import IMAGES, load_scene

Things = Mapping[str, Region]
SAMPLES = 10
_HEADS = 24
"""How many heads the table shows."""
_COUNTS = ("selected", "inside", "elsewhere")
_MASSES = ("general", "query")


@dataclass(frozen=True)
class Pictures:
    """Pictures whose things are known.

    Args:
        task: a question about each kind of thing that is asked about, with its boxes as the region.
        things: image -> kind -> boxes, of everything that is annotated.
    """

    task: Task
    things: Mapping[str, Things]


def pocket_pictures(split: str, *, limit: int | None = None, per_image: int = 3, seed: int = 42) -> Pictures:
    """The pocket scenes.

    Raises:
        ValueError: if there is no such split, or the limit is below 1.
    """
    if split not in IMAGES:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(IMAGES)}")
    scenes = {scene.id: scene for scene in (load_scene(split, index) for index in range(IMAGES[split]))}
    things = {id: {name: tuple(scene.boxes(name)) for name in sorted(scene.names)} for id, scene in scenes.items()}
    return _pictures(f"pocket {split}", things, lambda id: scenes[id].render(), limit, per_image, seed)


def coco_pictures(
    instances: Path, images: Path, *, limit: int | None = None, per_image: int = 3, seed: int = 42
) -> Pictures:
    """Images with annotations as COCO has them: {images, categories, annotations with bbox [x, y, width, height]}.

    Raises:
        ValueError: if the file is broken or has no boxes, or one of the images is missing from the folder.
    """
    annotated = read_instances(instances)
    things = {image: kinds for image, kinds in annotated.boxes.items() if kinds}
    if not things:
        raise ValueError(f"{instances} has no boxes: its annotations must have 'bbox'")
    files = annotated.files

    def open_image(image: str) -> Image.Image:
        return read_image(images / files[image])

    found = _pictures(instances.name, things, open_image, limit, per_image, seed)
    check_images(((str(instances), files[image]) for image in found.task.images), images)
    return found


def _pictures(name: str, things: Mapping[str, Things], open_image: Any, *drawn: Any) -> Pictures:
    limit, per_image, seed = drawn
    if per_image < 1:
        raise ValueError(f"per_image is {per_image}: it must be at least 1")
    questions = []
    for image, kinds in things.items():
        chosen = random.Random(f"{seed} {image}").sample(sorted(kinds), min(per_image, len(kinds)))
        questions += [Question(f"{image}-{kind}", image, kind, wording(kind), "yes", kinds[kind]) for kind in chosen]
    return Pictures(first_images(Task("regions", name, questions, open_image), limit), things)


def regions(
    lvlm: LVLM,
    pictures: Pictures,
    settings: Mapping[str, Any],
    folder: Path,
    *,
    model: str,
    seed: int = 42,
    advance: Advance = lambda *_: None,
) -> dict[str, Any]:
    """Measures, or goes on, and leaves study.json, study.md, study.svg and samples.png in the folder.

    Args:
        settings: of IAVA; alpha and the like do not matter, because it is the first token before which it looks.
        model: its name.
        seed: of the intervals and the samples.

    Returns:
        What is in the JSON: "tokens" (the mean number of them), "mean", "layers" (L) and "heads" (L, H): see
        `summary`; and the manifest.

    Raises:
        ValueError: if it is not known where the model's image tokens look, or the folder cannot be used.
    """
    method, task = lvlm.method("iava", **settings), pictures.task
    told = {"study": "regions", "pictures": task.split, "questions": task.digest, "model": model, "seed": seed}
    told |= {"weights": fingerprint(lvlm.model), "images": len(task.images), "method": method.settings()}
    manifest = open_run(folder, told, circumstances(lvlm.model))
    records = Records(folder / "records.jsonl")
    done = {record["id"] for record in records.rows}
    advance("regions", len(done), len(task.questions))
    for image in task.images:
        asked = [question for question in task.questions if question.image == image]
        if all(question.id in done for question in asked):
            continue
        answers = _asked(lvlm, method, task.open_image(image), asked)
        rows = [_record(q, e, method.settings(), pictures.things[image]) for q, e in zip(asked, answers, strict=True)]
        records.append([row for row in rows if row["id"] not in done])
        done.update(row["id"] for row in rows)
        advance("regions", len(done), len(task.questions))
    found = summary(records.rows, seed=seed) | {"questions": len(records.rows), "manifest": manifest}
    _show_samples(lvlm, method, pictures, folder / "samples.png", seed)
    return leave(folder, found, _told(found, told), _drawn(found))


def _asked(lvlm: LVLM, method: Any, picture: Image.Image, asked: Sequence[Question]) -> list[Explanation]:
    wordings = [question.question for question in asked]
    answers = lvlm.ask_many(picture, wordings, method=method, max_new_tokens=1, explain=True)
    explanations = [answer.explanation for answer in answers if answer.explanation is not None]
    if any(explanation.boxes is None for explanation in explanations):
        kind = lvlm.model.config.model_type
        raise ValueError(f"it is not known where {kind}'s image tokens look: use a model whose are patches")
    return explanations


def inside(boxes: np.ndarray, region: Region) -> np.ndarray:
    """Which tokens look at a region: (N, 4) rectangles -> (N,) bool, True if the middle lies in one of its boxes."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    within = [(x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) for x0, y0, x1, y1 in region]
    return np.logical_or.reduce([np.zeros(len(boxes), dtype=bool), *within])


def _record(question: Question, seen: Explanation, settings: Mapping[str, Any], things: Things) -> Record:
    assert seen.boxes is not None
    assert seen.heads_general is not None
    assert seen.heads_query is not None
    assert seen.layers_general is not None
    assert seen.layers_query is not None
    assert seen.att_general is not None
    assert seen.att_query is not None
    here = inside(seen.boxes, question.region or ())
    other = inside(seen.boxes, tuple(box for kind, boxes in things.items() for box in boxes)) & ~here
    places = torch.from_numpy(np.stack([here, other]))
    maps = {
        "mean": (seen.att_general, seen.att_query),
        "layers": (seen.layers_general, seen.layers_query),
        "heads": (seen.heads_general, seen.heads_query),
    }
    measured = {name: _measured(*pair, places, settings) for name, pair in maps.items()}
    about = {"id": question.id, "image": question.image, "kind": question.category, "tokens": len(here)}
    return {**about, "area": round(float(here.mean()), 6), **measured}


def _measured(
    general: torch.Tensor, query: torch.Tensor, places: torch.Tensor, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Of maps (..., N): how many tokens are selected, how many of them inside and on other things, and the shares of
    both attentions inside; (...) each."""
    flat = general.reshape(-1, general.shape[-1]), query.reshape(-1, query.shape[-1])
    chosen = select_irrelevant(*flat, top_i=settings["top_i"], lam=settings["lam"])
    counts = [chosen.sum(dim=1), *((chosen & place).sum(dim=1) for place in places)]
    masses = [(part * places[0]).sum(dim=1) / part.sum(dim=1).clamp(min=1e-12) for part in flat]
    shape = general.shape[:-1]
    return {name: count.reshape(shape).tolist() for name, count in zip(_COUNTS, counts, strict=True)} | {
        name: np.round(mass.reshape(shape).double().numpy(), 5).tolist()
        for name, mass in zip(_MASSES, masses, strict=True)
    }


def summary(records: Sequence[Record], *, seed: int) -> dict[str, Any]:
    """All questions together, for the mean over the chosen layers, each layer, and each head.

    Returns:
        "tokens", "area" (means), and for "mean", "layers" and "heads" values of shape (), (L) and (L, H), each
        [value, [low, high]] with its 95 % interval over images: "selected_inside", the share of all selected tokens
        that lie inside; "chance", the share that would if they lay anywhere; "times_chance", their quotient;
        "elsewhere", the share on other things; "general" and "query", the mean share of attention inside;
        "query_over_general", the quotient of these.
    """
    images = [record["image"] for record in records]
    area = np.array([record["area"] for record in records])
    found: dict[str, Any] = {"tokens": float(np.mean([record["tokens"] for record in records]))}
    found["area"] = float(area.mean())
    for part in ("mean", "layers", "heads"):
        columns = {name: np.array([r[part][name] for r in records], dtype=float) for name in (*_COUNTS, *_MASSES)}
        columns["chance"] = columns["selected"] * area.reshape(-1, *[1] * (columns["selected"].ndim - 1))
        columns["one"] = np.ones_like(columns["chance"])
        names, shape = list(columns), columns["chance"].shape[1:]
        values = np.stack([columns[name] for name in names], axis=-1).reshape(len(records), -1)
        draws = resampled(by_cluster(values, images), seed=seed).reshape(-1, *shape, len(names))
        drawn, total = _rates(draws, names), _rates(values.sum(axis=0).reshape(*shape, len(names)), names)
        found[part] = {name: _with_limits(total[name], drawn[name]) for name in total}
    return found


def _rates(sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    of = dict(zip(names, np.moveaxis(sums, -1, 0), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "selected_inside": of["inside"] / of["selected"],
            "chance": of["chance"] / of["selected"],
            "times_chance": of["inside"] / of["chance"],
            "elsewhere": of["elsewhere"] / of["selected"],
            "general": of["general"] / of["one"],
            "query": of["query"] / of["one"],
            "query_over_general": of["query"] / of["general"],
        }


def _with_limits(value: np.ndarray, draws: np.ndarray) -> Any:
    """[value, [low, high]], nested as the value is; None where nothing was selected."""
    if value.ndim:
        return [_with_limits(value[n], draws[:, n]) for n in range(len(value))]
    limits: Interval = interval(draws)
    return [float(value), list(limits)] if np.isfinite(value) else [None, None]


_COLUMNS = {
    "selected_inside": "Selected inside",
    "chance": "By chance",
    "times_chance": "Times chance",
    "elsewhere": "Selected on other things",
    "general": "General attention inside",
    "query": "Query attention inside",
    "query_over_general": "Query / general",
}
_QUOTIENTS = ("times_chance", "query_over_general")


def _told(found: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    lines = [Line("chosen layers", _cells(found["mean"]))]
    depth = len(found["layers"]["chance"])
    lines += [Line(f"layer {n}", _cells({k: v[n] for k, v in found["layers"].items()})) for n in range(depth)]
    of_heads = {(n, h): one[0] for n, row in enumerate(found["heads"]["query"]) for h, one in enumerate(row)}
    for n, h in sorted(of_heads, key=lambda head: -of_heads[head])[:_HEADS]:
        lines.append(Line(f"layer {n}, head {h}", _cells({k: v[n][h] for k, v in found["heads"].items()})))
    settings = ", ".join(f"{key}={value}" for key, value in told["method"].items() if key in ("top_i", "lam", "layers"))
    note = (
        f"{found['questions']:,} questions about {told['images']:,} pictures ({told['pictures']}, model "
        f"{told['model']}); the boxes have {number('', found['area'])} % of the {found['tokens']:.0f} tokens; "
        f"{settings}; of {len(of_heads)} heads the {min(_HEADS, len(of_heads))} with most query attention inside. "
        f"Percent, quotients as they are; 95 % intervals over images; seed {told['seed']}."
    )
    title = "Where the selected tokens and the attention lie"
    return markdown(Table(title, list(_COLUMNS.values()), lines, note, head="Attention of"))


def _cells(values: Mapping[str, Any]) -> list[Cell]:
    cells = []
    for name in _COLUMNS:
        value, limits = values[name]
        if value is None:
            cells.append(Cell("–"))
        elif name in _QUOTIENTS:
            cells.append(Cell(f"{value:.2f}", f"[{limits[0]:.2f}, {limits[1]:.2f}]"))
        else:
            cells.append(Cell(number("", value), pair("", limits)))
    return cells


def _drawn(found: Mapping[str, Any]) -> Figure:
    layers = found["layers"]
    figure, axes = panels(1, 4)
    labels = [str(n) for n in range(len(layers["chance"]))]
    reference = ("area of the boxes", found["area"], None)
    values, limits = zip(*layers["selected_inside"], strict=True)
    estimates(axes[0], values, limits, labels=labels, reference=reference)
    axes[0].set(title="Selected tokens inside, %", xlabel="layer")
    for panel, name in zip(axes[1:], ("times_chance", "general", "query"), strict=True):
        heads = np.array([[np.nan if one[0] is None else one[0] for one in row] for row in found["heads"][name]])
        # Chance is white: what is above it is of one colour, what is below of the other.
        times = heads if name == "times_chance" else heads / found["area"]
        shown = panel.imshow(np.log2(times.clip(0.125, 8)), cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
        panel.set(title=f"{_COLUMNS[name]}, times chance", xlabel="head", ylabel="layer")
        panel.set(xticks=range(heads.shape[1]), yticks=range(heads.shape[0]))
        bar = figure.colorbar(shown, ax=panel, ticks=range(-3, 4))
        bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes[1].set_title("Selected tokens inside, times chance")
    return figure


def _show_samples(lvlm: LVLM, method: Any, pictures: Pictures, path: Path, seed: int) -> None:
    """Pictures, drawn at random, one question each: both attentions and the selected tokens side by side."""
    task = pictures.task
    images = sorted(random.Random(seed).sample(task.images, min(SAMPLES, len(task.images))))
    figure, axes = panels(-(-len(images) // 2), 8, width=1.5, height=1.7)
    for panel in axes:
        panel.set_axis_off()
    for n, image in enumerate(images):
        question = next(question for question in task.questions if question.image == image)
        picture = task.open_image(image).convert("RGB")
        (seen,) = _asked(lvlm, method, picture, [question])
        assert seen.att_general is not None
        assert seen.att_query is not None
        assert seen.selected is not None
        assert seen.boxes is not None
        row = axes[4 * n : 4 * n + 4]
        most = max(float(seen.att_general.max()), float(seen.att_query.max()))
        _show(row[0], picture, question.region or (), f"asked: {question.category}")
        for panel, weights, name in ((row[1], seen.att_general, "general"), (row[2], seen.att_query, "query")):
            _show(panel, picture, question.region or (), name, seen.boxes, (weights / most).numpy())
        _show(row[3], picture, question.region or (), "selected", seen.boxes, seen.selected.float().numpy())
    save(figure, path)


def _show(
    axes: Axes,
    picture: Image.Image,
    region: Region,
    title: str,
    boxes: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=7, pad=2)
    if boxes is not None and weights is not None:
        axes.imshow(np.full((picture.height, picture.width), 255), cmap="gray", vmin=0, vmax=255, alpha=0.35)
        for (x0, y0, x1, y1), weight in zip(boxes, weights, strict=True):
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, color=OURS, alpha=0.85 * float(weight) ** 0.5, linewidth=0)
            )
    for x0, y0, x1, y1 in region:
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=REFERENCE, linewidth=1.2))
