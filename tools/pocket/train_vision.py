"""First stage of the pocket training: eyes. A CLIP vision tower learns to say what each patch shows.

Practice pictures are crowded with things of every kind in every training style, so that no context can be learned here:
what the tower knows of a thing is what the thing looks like. Shifts, mirroring and colour gains make each showing a new
picture.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from iava.pocket.scenes import COLOURS, SIZE, THINGS, Scene, load_scene, practice_scene

SIDE = 96  # pixels that the model sees of a scene's side
PATCH = 8
GRID = SIDE // PATCH
CHUNK = 500
NAMES = list(THINGS)
HUES = list(COLOURS)

VISION = CLIPVisionConfig(
    hidden_size=192,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=6,
    image_size=SIDE,
    patch_size=PATCH,
    hidden_act="gelu",
)

RULER = torch.linspace(-1, 1, GRID)
PLACES = torch.cartesian_prod(RULER, RULER)  # (GRID * GRID, 2): how far down and how far right each patch is


class Eyes(nn.Module):
    """The vision tower with what only its training needs: heads that name each patch's thing, colour and place.

    A patch can be named without knowing where it is, so place is a target of its own; positions begin as sines and
    cosines, in which it can be read from the first step on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION)
        self.norm = nn.LayerNorm(VISION.hidden_size)
        self.thing = nn.Linear(VISION.hidden_size, len(NAMES) + 1)
        self.colour = nn.Linear(VISION.hidden_size, len(HUES) + 1)
        self.place = nn.Linear(VISION.hidden_size, 2)
        with torch.no_grad():
            self.tower.embeddings.position_embedding.weight[1:] = waves()

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) normalised pixels -> (B, GRID * GRID, hidden): what the projector will be given."""
        return self.tower(pixel_values=pixels).last_hidden_state[:, 1:]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each patch's features say: logits of its thing and of its colour, and its place (see `PLACES`)."""
        features = self.features(pixels)
        hidden = self.norm(features)
        return self.thing(hidden), self.colour(hidden), self.place(features)


def waves() -> Tensor:
    """(GRID * GRID, hidden): sines and cosines of each patch's place, at the size of the patches' own embeddings."""
    angles = PLACES[..., None] * torch.pi / 2 * 2.0 ** torch.arange(VISION.hidden_size // 4).div(16)
    return 0.3 * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def train_eyes(
    folder: Path, *, pictures: int, steps: int, batch: int, seed: int, device: torch.device, every: int = 250
) -> Eyes:
    """Trains the tower, or goes on from the checkpoint in `folder`; returns it in eval mode.

    A checkpoint is written, and patches are named on the tune splits, every so many steps.
    """
    torch.manual_seed(seed)
    eyes = Eyes().to(device)
    optimisers, schedulers = optimise(eyes, steps=steps, muon_lr=0.01, adam_lr=1.5e-3)
    checkpoint = Checkpoint(folder / "vision.pt", eyes, [*optimisers, *schedulers])
    done = checkpoint.load()
    if done < steps:
        images, labels = practice(folder, pictures)
        with Progress() as progress:
            task = progress.add_task("vision", total=steps, completed=done)
            for step in range(done, steps):
                # Of the step, so that a resumed run is the same.
                rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
                picked = torch.randint(len(images), (batch,), generator=rng).numpy()
                picked.sort()
                pixels, things, colours = augmented(images[picked], labels[picked], rng)
                thing, colour, place = eyes(pixels.to(device))
                loss = F.cross_entropy(thing.flatten(0, 1), things.flatten().to(device), ignore_index=-100)
                loss = loss + 0.2 * F.cross_entropy(
                    colour.flatten(0, 1), colours.flatten().to(device), ignore_index=-100
                )
                astray = (place - PLACES.to(device)).square().mean()
                (loss + astray).backward()
                advance(optimisers, schedulers)
                progress.update(task, advance=1)
                if (step + 1) % every == 0 or step + 1 == steps:
                    checkpoint.save(step + 1)
                    seen, heldout = (patch_accuracy(eyes, split, 100, device) for split in ("tune", "tune-heldout"))
                    progress.console.print(
                        f"step {step + 1}: loss {loss.item():.3f}, place {astray.item():.3f}, "
                        f"patches {seen:.3f}, held-out style {heldout:.3f}"
                    )
    return eyes.eval()


class Checkpoint:
    """What a training needs to go on: the model, its optimisers and schedulers, and the number of steps done."""

    def __init__(self, path: Path, model: nn.Module, rest: list[Any]) -> None:
        self.path = path
        self.parts = [model, *rest]

    def load(self) -> int:
        """Restores the parts and returns the steps done; 0 if nothing was saved."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["step"]

    def save(self, step: int) -> None:
        new = self.path.with_suffix(".new")
        torch.save({"step": step, "parts": [part.state_dict() for part in self.parts]}, new)
        new.replace(self.path)


def optimise(
    model: nn.Module, *, steps: int, muon_lr: float, adam_lr: float
) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
    """Muon for the layers' matrices, AdamW for all else; both warm up, hold, and fall to zero over the last 40 %."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for name, p in trained if p.ndim == 2 and ".layers." in name]
    chosen = {id(p) for p in hidden}
    others = [p for _, p in trained if id(p) not in chosen]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=0.02),
        torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 100, max(0.0, (steps - step) / (0.4 * steps)))

    return optimisers, [torch.optim.lr_scheduler.LambdaLR(o, rate) for o in optimisers]


def advance(optimisers: list[torch.optim.Optimizer], schedulers: list[torch.optim.lr_scheduler.LRScheduler]) -> None:
    """One step of all that `optimise` returned."""
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    for scheduler in schedulers:
        scheduler.step()


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix is made orthogonal by Newton-Schulz steps (Jordan et al., 2024).

    In single precision: torch.optim.Muon computes in bfloat16, which takes a hundred times as long on most CPUs.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for alike in shapes.values():
                updates = []
                for p in alike:
                    assert p.grad is not None
                    velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))
                stacked = _orthogonal(torch.stack(updates))
                scale = group["lr"] * max(1, alike[0].shape[0] / alike[0].shape[1]) ** 0.5
                for p, update in zip(alike, stacked, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def _orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> the same shape, singular values moved near 1 by five quintic Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def practice(folder: Path, pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (pictures, SIDE, SIDE, 3) and (pictures, SIDE, SIDE, 2): pictures, and each pixel's thing and colour."""
    paths = folder / "practice-images.npy", folder / "practice-labels.npy"
    if not all(path.exists() for path in paths):
        chunks = [(start, min(start + CHUNK, pictures)) for start in range(0, pictures, CHUNK)]
        with ProcessPoolExecutor() as pool:
            drawn = list(track(pool.map(_practice_chunk, chunks), "drawing practice pictures", total=len(chunks)))
        for path, part in zip(paths, zip(*drawn, strict=True), strict=True):
            np.save(path, np.concatenate(part))
    images, labels = (np.load(path) for path in paths)
    return images, labels


def _practice_chunk(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    drawn = [seen(practice_scene(i)) for i in range(*span)]
    return np.stack([image for image, _ in drawn]), np.stack([label for _, label in drawn])


def seen(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(SIDE, SIDE, 3) pixels as the processor shrinks them, (SIDE, SIDE, 2) thing and colour numbers, 0 for none."""
    factor = SIZE // SIDE
    pixels = np.asarray(scene.render().reduce(factor))
    owner = scene.owner()[::factor, ::factor].astype(int)
    things = np.array([*(1 + NAMES.index(t.name) for t in scene.things), 0], dtype=np.uint8)
    hues = np.array(
        [*(1 + HUES.index(t.colour) if THINGS[t.name].paintable else 0 for t in scene.things), 0],
        dtype=np.uint8,
    )
    return pixels, np.stack([things[owner], hues[owner]], axis=-1)


def normalised(images: np.ndarray | Tensor) -> Tensor:
    """(B, SIDE, SIDE, 3) uint8 -> (B, 3, SIDE, SIDE) float as the processor gives it: (x / 255 - 0.5) / 0.25."""
    # A copy, because a picture's own array may not be written to.
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(images.copy())
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def augmented(images: np.ndarray, labels: np.ndarray, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Shifted, mirrored and colour-scaled pictures, with each patch's thing and colour (see `patch_labels`)."""
    batch = len(images)
    pixels, maps = torch.from_numpy(images), torch.from_numpy(labels)
    dx, dy = (int(v) for v in torch.randint(-10, 11, (2,), generator=rng))
    pixels, maps = pixels.roll((dy, dx), (1, 2)), maps.roll((dy, dx), (1, 2))
    flip = torch.rand(batch, generator=rng) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(2), pixels)
    maps = torch.where(flip[:, None, None, None], maps.flip(2), maps)
    gain = 1 + 0.15 * torch.randn(batch, 3, 1, 1, generator=rng)
    shift = 0.15 * torch.randn(batch, 3, 1, 1, generator=rng)
    return normalised(pixels) * gain + shift, *patch_labels(maps)


def patch_labels(maps: Tensor) -> tuple[Tensor, Tensor]:
    """(B, SIDE, SIDE, 2) -> things (B, GRID * GRID), colours (B, GRID * GRID).

    A patch shows the thing that has most of it, if that is at least 35 %; the background (0) if things have less than
    15 %; else nobody can say (-100). A colour counts only where a paintable thing is shown.
    """
    batch = len(maps)
    patches = maps.view(batch, GRID, PATCH, GRID, PATCH, 2).permute(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(batch, GRID * GRID, PATCH * PATCH, 2).long()
    counts = torch.zeros(batch, GRID * GRID, len(NAMES) + 1)
    counts.scatter_add_(2, patches[..., 0], torch.ones_like(patches[..., 0], dtype=torch.float32))
    share, thing = counts[..., 1:].max(-1)
    thing = thing + 1
    thing = torch.where(share >= 0.35 * PATCH * PATCH, thing, -100)
    thing = torch.where(counts[..., 0] > 0.85 * PATCH * PATCH, 0, thing)
    colour = torch.where(patches[..., 0] == thing[..., None], patches[..., 1], 0).amax(-1)
    return thing, torch.where((thing > 0) & (colour > 0), colour, -100)


@torch.no_grad()
def patch_accuracy(eyes: Eyes, split: str, scenes: int, device: torch.device) -> float:
    """Share of the patches that show a thing whose thing is named rightly."""
    drawn = [seen(load_scene(split, i)) for i in range(scenes)]
    things, _ = patch_labels(torch.from_numpy(np.stack([label for _, label in drawn])))
    named = eyes(normalised(np.stack([image for image, _ in drawn])).to(device))[0].argmax(-1).cpu()
    shown = things > 0
    return (named == things)[shown].float().mean().item()
