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
from PIL import Image

from iava.bench.pope import Region
from iava.bench.records import Record, Records, circumstances, fingerprint, open_run
from iava.bench.runner import Advance
from iava.bench.stats import Interval, by_cluster, interval, resampled
from iava.bench.study.outcome import leave
from iava.bench.study.pictures import Pictures, Things
from iava.bench.study.regions_shown import Sample, drawn, show_samples, table
from iava.bench.task import Question, Task
from iava.lvlm import LVLM, Explanation
from iava.methods.select import select_irrelevant

SAMPLES = 10
_COUNTS = ("selected", "inside", "elsewhere")
_MASSES = ("general", "query")


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
    show_samples(_samples(lvlm, method, task, seed), folder / "samples.png")
    return leave(folder, found, table(found, told), drawn(found))


def _samples(lvlm: LVLM, method: Any, task: Task, seed: int) -> list[Sample]:
    """Pictures drawn at random, with the first question about each."""
    found = []
    for image in sorted(random.Random(seed).sample(task.images, min(SAMPLES, len(task.images)))):
        question = next(question for question in task.questions if question.image == image)
        picture = task.open_image(image).convert("RGB")
        (seen,) = _asked(lvlm, method, picture, [question])
        found.append((picture, question, seen))
    return found


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
