"""First stage of the pocket training: a CLIP vision tower learns to classify the object in each patch.

Practice images are crowded with objects of all classes in all training styles. No context can be learned from them, so
the tower knows objects by their appearance only. Shifts, mirroring and colour gains augment the images.
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

from iava.pocket.scenes import Scene, load_scene, practice_scene
from iava.pocket.world import COLOURS, OBJECT_CLASSES, SIZE

SIDE = 96  # pixels on a side of the model's input
PATCH = 8
GRID = SIDE // PATCH
CHUNK = 500
NAMES = list(OBJECT_CLASSES)
COLOUR_NAMES = list(COLOURS)

VISION = CLIPVisionConfig(
    hidden_size=192,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=6,
    image_size=SIDE,
    patch_size=PATCH,
    hidden_act="gelu",
)

_RULER = torch.linspace(-1, 1, GRID)
PATCH_POSITIONS = torch.cartesian_prod(_RULER, _RULER)
"""(GRID * GRID, 2): row and column of each patch, from -1 to 1."""


class VisionTrainer(nn.Module):
    """The vision tower with heads for its training: object, colour and position of each patch.

    Objects can be classified without their position, so the position is a separate target. Position embeddings start as
    sines and cosines, from which the position can be decoded at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(VISION)
        self.norm = nn.LayerNorm(VISION.hidden_size)
        self.object = nn.Linear(VISION.hidden_size, len(NAMES) + 1)
        self.colour = nn.Linear(VISION.hidden_size, len(COLOUR_NAMES) + 1)
        self.position = nn.Linear(VISION.hidden_size, 2)
        with torch.no_grad():
            self.tower.embeddings.position_embedding.weight[1:] = sinusoidal_positions()

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, SIDE, SIDE) normalised pixels -> (B, GRID * GRID, hidden) inputs of the projector."""
        return self.tower(pixel_values=pixels).last_hidden_state[:, 1:]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each patch the logits of object and colour, and the predicted position (see `PATCH_POSITIONS`)."""
        features = self.features(pixels)
        hidden = self.norm(features)
        return self.object(hidden), self.colour(hidden), self.position(features)


def sinusoidal_positions() -> Tensor:
    """(GRID * GRID, hidden) sines and cosines of the patch positions, scaled like the patch embeddings."""
    angles = PATCH_POSITIONS[..., None] * torch.pi / 2 * 2.0 ** torch.arange(VISION.hidden_size // 4).div(16)
    return 0.3 * torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def train_vision_tower(
    folder: Path, *, images: int, steps: int, batch: int, seed: int, device: torch.device, every: int = 250
) -> VisionTrainer:
    """Trains the tower, or continues from the checkpoint in `folder`. Returns it in eval mode.

    Args:
        images: number of practice images.
        every: steps between checkpoints, which also print the patch accuracy on the tune splits.
    """
    torch.manual_seed(seed)
    trainer = VisionTrainer().to(device)
    optimisers, schedulers = make_optimisers(trainer, steps=steps, muon_lr=0.01, adam_lr=1.5e-3)
    checkpoint = Checkpoint(folder / "vision.pt", trainer, [*optimisers, *schedulers])
    done = checkpoint.load()
    if done < steps:
        pixels, labels = practice_images(folder, images)
        with Progress() as progress:
            task = progress.add_task("vision", total=steps, completed=done)
            for step in range(done, steps):
                # The seed depends on the step, so that a resumed training is equal.
                rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
                chosen = torch.randint(len(pixels), (batch,), generator=rng).numpy()
                chosen.sort()
                inputs, objects, colours = augmented(pixels[chosen], labels[chosen], rng)
                object_logits, colour_logits, positions = trainer(inputs.to(device))
                loss = F.cross_entropy(object_logits.flatten(0, 1), objects.flatten().to(device), ignore_index=-100)
                loss = loss + 0.2 * F.cross_entropy(
                    colour_logits.flatten(0, 1), colours.flatten().to(device), ignore_index=-100
                )
                position_loss = (positions - PATCH_POSITIONS.to(device)).square().mean()
                (loss + position_loss).backward()
                advance(optimisers, schedulers)
                progress.update(task, advance=1)
                if (step + 1) % every == 0 or step + 1 == steps:
                    checkpoint.save(step + 1)
                    tune, heldout = (patch_accuracy(trainer, split, 100, device) for split in ("tune", "tune-heldout"))
                    progress.console.print(
                        f"step {step + 1}: loss {loss.item():.3f}, position {position_loss.item():.3f}, "
                        f"patch accuracy {tune:.3f}, held-out style {heldout:.3f}"
                    )
    return trainer.eval()


class Checkpoint:
    """The state of a training: model, optimisers, schedulers, and the number of finished steps."""

    def __init__(self, path: Path, model: nn.Module, rest: list[Any]) -> None:
        self.path = path
        self.parts = [model, *rest]

    def load(self) -> int:
        """Restores the state and returns the number of finished steps, 0 without a checkpoint."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["step"]

    def save(self, step: int) -> None:
        """Saves the state after a step. The file is replaced at once."""
        new = self.path.with_suffix(".new")
        torch.save({"step": step, "parts": [part.state_dict() for part in self.parts]}, new)
        new.replace(self.path)


def make_optimisers(
    model: nn.Module, *, steps: int, muon_lr: float, adam_lr: float
) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
    """Muon for the matrices of layers and AdamW for all other weights.

    Both learning rates warm up, stay constant, and fall to zero over the last 40 % of the steps.
    """
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
    """One step of everything that `make_optimisers` returned."""
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad()
    for scheduler in schedulers:
        scheduler.step()


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonalized update, by Newton-Schulz iteration (Jordan et al., 2024).

    Computes in single precision. torch.optim.Muon computes in bfloat16, which most CPUs do a hundred times slower.
    """

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for same_shape in shapes.values():
                updates = []
                for p in same_shape:
                    assert p.grad is not None
                    velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))
                stacked = _orthogonal(torch.stack(updates))
                scale = group["lr"] * max(1, same_shape[0].shape[0] / same_shape[0].shape[1]) ** 0.5
                for p, update in zip(same_shape, stacked, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)


def _orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> the same shape, with singular values near 1 after five quintic Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def practice_images(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Practice images (count, SIDE, SIDE, 3) and their pixel labels (count, SIDE, SIDE, 2), both uint8.

    The labels are the object and the colour of each pixel (see `render_with_labels`). Both are cached in `folder`.
    """
    paths = folder / "practice-images.npy", folder / "practice-labels.npy"
    if not all(path.exists() for path in paths):
        chunks = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor() as pool:
            parts = list(track(pool.map(_practice_chunk, chunks), "drawing practice images", total=len(chunks)))
        for path, part in zip(paths, zip(*parts, strict=True), strict=True):
            np.save(path, np.concatenate(part))
    images, labels = (np.load(path) for path in paths)
    return images, labels


def _practice_chunk(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rendered = [render_with_labels(practice_scene(i)) for i in range(*span)]
    return np.stack([image for image, _ in rendered]), np.stack([label for _, label in rendered])


def render_with_labels(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """(SIDE, SIDE, 3) pixels as the processor scales them, and (SIDE, SIDE, 2) object and colour labels, 0 for none."""
    factor = SIZE // SIDE
    pixels = np.asarray(scene.render().reduce(factor))
    segmentation = scene.segmentation()[::factor, ::factor].astype(int)
    objects = np.array([*(1 + NAMES.index(one.name) for one in scene.objects), 0], dtype=np.uint8)
    colours = [
        1 + COLOUR_NAMES.index(one.colour) if OBJECT_CLASSES[one.name].recolourable else 0 for one in scene.objects
    ]
    colour_labels = np.array([*colours, 0], dtype=np.uint8)
    return pixels, np.stack([objects[segmentation], colour_labels[segmentation]], axis=-1)


def normalised(images: np.ndarray | Tensor) -> Tensor:
    """(B, SIDE, SIDE, 3) uint8 -> (B, 3, SIDE, SIDE) float as the processor normalises it: (x / 255 - 0.5) / 0.25."""
    # A copy, because PIL's arrays are read-only.
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(images.copy())
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def augmented(images: np.ndarray, labels: np.ndarray, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Shifted, mirrored and colour-scaled images, with the labels of each patch (see `patch_labels`)."""
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
    """(B, SIDE, SIDE, 2) pixel labels -> object and colour labels of the patches, both (B, GRID * GRID).

    A patch has the label of the object with most of its pixels, if that is at least 35 %. It is background (0) if
    objects cover less than 15 %. Otherwise it is ignored (-100). Only recolourable objects have a colour label.
    """
    batch = len(maps)
    patches = maps.view(batch, GRID, PATCH, GRID, PATCH, 2).permute(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(batch, GRID * GRID, PATCH * PATCH, 2).long()
    counts = torch.zeros(batch, GRID * GRID, len(NAMES) + 1)
    counts.scatter_add_(2, patches[..., 0], torch.ones_like(patches[..., 0], dtype=torch.float32))
    pixels, label = counts[..., 1:].max(-1)
    label = torch.where(pixels >= 0.35 * PATCH * PATCH, label + 1, -100)
    label = torch.where(counts[..., 0] > 0.85 * PATCH * PATCH, 0, label)
    colour = torch.where(patches[..., 0] == label[..., None], patches[..., 1], 0).amax(-1)
    return label, torch.where((label > 0) & (colour > 0), colour, -100)


@torch.no_grad()
def patch_accuracy(trainer: VisionTrainer, split: str, scenes: int, device: torch.device) -> float:
    """Share of patches with an object whose object is classified correctly."""
    rendered = [render_with_labels(load_scene(split, i)) for i in range(scenes)]
    labels, _ = patch_labels(torch.from_numpy(np.stack([label for _, label in rendered])))
    predicted = trainer(normalised(np.stack([image for image, _ in rendered])).to(device))[0].argmax(-1).cpu()
    has_object = labels > 0
    return (predicted == labels)[has_object].float().mean().item()
