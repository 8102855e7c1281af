"""Measures the numbers of the model card: `python -m tools.pocket.card --records runs/pocket-test`.

The folder is that of a finished `iava eval pope --model pocket --methods greedy,... --split test`. Its greedy records
are read. Positions, captions and the probe are measured here by greedy decoding. Prints one JSON object.

A false "yes" is prior-driven if the vision tokens do not support the object. Support is measured by a linear probe on
the vision tokens, which is trained on training scenes.
"""

import json
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from iava.lvlm.loading import load
from iava.lvlm.model import LVLM
from iava.pocket.scenes import Scene, load_scene
from iava.pocket.text import halves_of, plural, positions
from iava.pocket.world import OBJECT_CLASSES
from tools.pocket.train_vision import NAMES, normalised, patch_labels, render_with_labels

TRAINING_SCENES = 1000
TUNING_SCENES = 400


def card(
    records: Annotated[Path, typer.Option(help="folder of a finished `iava eval pope` run with the method greedy")],
    model: Annotated[str, typer.Option(help="the model of that run")] = "pocket",
    images: Annotated[int, typer.Option(help="images for captions and positions")] = 500,
) -> None:
    """Prints the numbers of the model card as JSON."""
    answers = [json.loads(line) for line in (records / "records.jsonl").read_text().splitlines()]
    greedy = [answer for answer in answers if answer["method"] == "greedy"]
    lvlm = load(model)
    split = greedy[0]["split"]
    report = {
        "split": split,
        **accuracies(greedy),
        **prior_driven(lvlm, greedy),
        **captions_and_positions(lvlm, split, images),
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in report.items()}, indent=2))


def accuracies(answers: list[dict]) -> dict[str, float]:
    """Accuracy and false-yes rate of each category."""
    report = {}
    for category in ("random", "popular", "adversarial"):
        rows = [a for a in answers if a["category"] == category]
        report[f"accuracy_{category}"] = float(np.mean([a["parsed"] == a["truth"] for a in rows]))
        report[f"false_yes_{category}"] = float(np.mean([a["parsed"] == "yes" for a in rows if a["truth"] == "no"]))
    return report


def vision_tokens(lvlm: LVLM, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """(n, tokens, hidden) features of the vision tower and (n, tokens) object labels of the patches."""
    rendered = [render_with_labels(scene) for scene in scenes]
    tower = lvlm.model.model.vision_tower
    with torch.no_grad():
        features = [
            tower(pixel_values=normalised(np.stack([image for image, _ in rendered[i : i + 50]]))).last_hidden_state[
                :, 1:
            ]
            for i in range(0, len(rendered), 50)
        ]
    return torch.cat(features), patch_labels(torch.from_numpy(np.stack([maps for _, maps in rendered])))[0]


def linear_probe(features: Tensor, labels: Tensor) -> nn.Linear:
    """A linear classifier from a vision token to the object of its patch."""
    torch.manual_seed(0)
    x, y = features.flatten(0, 1), labels.flatten()
    x, y = x[y >= 0], y[y >= 0]
    probe = nn.Linear(x.shape[1], len(NAMES) + 1)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3)
    for rows in torch.randint(len(x), (1500, 1024)):
        loss = F.cross_entropy(probe(x[rows]), y[rows])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return probe


def support(probe: nn.Linear, features: Tensor) -> Tensor:
    """(n, tokens, hidden) -> (n, classes): mean log probability of each class over its three best patches."""
    with torch.no_grad():
        return probe(features).log_softmax(-1)[..., 1:].topk(3, dim=1).values.mean(1)


def prior_driven(lvlm: LVLM, answers: list[dict]) -> dict[str, float]:
    """The accuracy of the probe, and the share of adversarial false "yes" without support in the image."""
    probe = linear_probe(*vision_tokens(lvlm, [load_scene("train", i) for i in range(TRAINING_SCENES)]))
    tune = [load_scene("tune", i) for i in range(TUNING_SCENES)]
    scores = support(probe, vision_tokens(lvlm, tune)[0])
    present = torch.tensor([[name in scene.names for name in NAMES] for scene in tune])
    grid = torch.quantile(scores.flatten()[:: max(1, scores.numel() // 10000)], torch.linspace(0.5, 0.99, 99))
    balanced = [((scores > t)[present].float().mean() + (scores <= t)[~present].float().mean()) / 2 for t in grid]
    threshold = grid[int(torch.stack(balanced).argmax())]

    split = answers[0]["split"]
    images = sorted({answer["image"] for answer in answers})
    scenes = [load_scene(split, int(image.rsplit("-", 1)[1])) for image in images]
    features, labels = vision_tokens(lvlm, scenes)
    supported = support(probe, features) > threshold
    supported_in = dict(zip(images, supported, strict=True))
    predicted = probe(features).argmax(-1)
    truth = torch.tensor([[name in scene.names for name in NAMES] for scene in scenes])
    wrong = [a for a in answers if a["category"] == "adversarial" and a["truth"] == "no" and a["parsed"] == "yes"]
    unsupported = [not supported_in[a["image"]][NAMES.index(object_asked(a["question"]))] for a in wrong]
    return {
        "patch_accuracy": float((predicted == labels)[labels > 0].float().mean()),
        "probe_balanced_accuracy": float((supported[truth].float().mean() + (~supported)[~truth].float().mean()) / 2),
        "adversarial_false_yes": len(wrong),
        "prior_driven": float(np.mean(unsupported)),
    }


def object_asked(question: str) -> str:
    """The object class of a POPE question."""
    match = re.match(r"Is there an? (.+) in the image\?$", question)
    assert match, question
    return match[1]


def captions_and_positions(lvlm: LVLM, split: str, images: int) -> dict[str, float | str]:
    """Accuracy for positions; object recall, CHAIRi, CHAIRs and an example of captions."""
    halves: list[bool] = []
    pairs: list[bool] = []
    recall, mentions, hallucinated, captions_with_hallucination, first = [], 0, 0, 0, ""
    for index in track(range(images), "captions and positions", console=Console(stderr=True)):
        scene = load_scene(split, index)
        exchanges = halves_of(scene, scene.names, np.random.default_rng(index))[:2]
        exchanges += positions(scene, scene.names, np.random.default_rng(index))[:2]
        answers = lvlm.ask_many(
            scene.render(),
            [e.question for e in exchanges] + ["Describe this image."],
            method="greedy",
            max_new_tokens=64,
        )
        for answer, exchange in zip(answers, exchanges, strict=False):
            (halves if exchange.kind == "half" else pairs).append(answer.text == exchange.answer)
        first = first or answers[-1].text
        words = set(re.findall(r"[a-z]+", answers[-1].text.lower()))
        mentioned = {name for name in OBJECT_CLASSES if name in words or plural(name) in words}
        recall.append(len(mentioned & scene.names) / len(scene.names))
        mentions += len(mentioned)
        hallucinated += len(mentioned - scene.names)
        captions_with_hallucination += bool(mentioned - scene.names)
    return {
        "left_right": float(np.mean(halves)),
        "left_right_of_two": float(np.mean(pairs)),
        "caption_recall": float(np.mean(recall)),
        "chair_i": hallucinated / max(1, mentions),
        "chair_s": captions_with_hallucination / images,
        "caption_example": first,
    }


if __name__ == "__main__":
    typer.run(card)
