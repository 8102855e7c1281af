"""Second stage of the pocket training: projector and decoder learn to talk about scenes. The vision tower is frozen.

Alignment: the projector maps each patch close to the word for its object. Phase A: true answers over few patches, with
a guidance loss that pulls some attention heads to the object asked about. Phase B: all patches, misleading text, masked
patches, no guidance. The questions about a scene are packed after one image (see `tools.pocket.packs`).
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from iava.benchmarks.pope import wording
from iava.pocket.scenes import Scene, load_scene
from iava.pocket.text import Exchange, build_tokenizer, exchanges, halves_of, positions
from iava.pocket.world import CONTEXTS, OBJECT_CLASSES
from tools.pocket.packs import TOKENS, Pack, Packer, random_patch_mask, visible_objects
from tools.pocket.train_vision import (
    GRID,
    NAMES,
    VISION,
    Checkpoint,
    VisionTrainer,
    advance,
    make_optimisers,
    normalised,
    patch_labels,
    render_with_labels,
)

CHUNK = 250
PHASE_A_PATCHES = 40
ALIGN_STEPS = 600
PROGRESS_SCENES = 200  # scenes of "tune" on which progress is measured


def build_model(tokenizer: PreTrainedTokenizerFast, vision: VisionTrainer) -> LlavaForConditionalGeneration:
    """A pocket LLaVA with a trained, frozen vision tower and random weights elsewhere."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=VISION,
        text_config=text,
        image_token_index=tokenizer.image_token_id,
        image_seq_length=TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision.tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


@dataclass
class EncodedScenes:
    """Scenes with the output of the frozen vision tower.

    Args:
        scenes: n scenes.
        features: (n, TOKENS, hidden), in half precision.
        labels: (n, TOKENS) the object label of each patch.
    """

    scenes: list[Scene]
    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scenes)


def encode_scenes(
    vision: VisionTrainer, split: str, number: int, device: torch.device, cache: Path | None = None
) -> EncodedScenes:
    """Encodes the first scenes of a split. Features and labels are read from the file `cache` if it exists."""
    if cache is not None and cache.exists():
        features, labels = torch.load(cache, weights_only=True, mmap=True)
        return EncodedScenes(
            [load_scene(split, i) for i in track(range(number), f"scenes of {split}")], features, labels
        )
    starts = range(0, number, CHUNK)
    scenes, features, labels = [], [], []
    with ProcessPoolExecutor() as pool, torch.no_grad():
        chunks = pool.map(_render_chunk, [(split, start, min(start + CHUNK, number)) for start in starts])
        for new, images, maps in track(chunks, f"encoding {split}", total=len(starts)):
            scenes += new
            features.append(vision.features(normalised(images).to(device)).half().cpu())
            labels.append(patch_labels(torch.from_numpy(maps))[0])
    encoded = torch.cat(features), torch.cat(labels)
    if cache is not None:
        torch.save(encoded, cache.with_suffix(".new"))
        cache.with_suffix(".new").replace(cache)
    return EncodedScenes(scenes, *encoded)


def _render_chunk(chunk: tuple[str, int, int]) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    split, start, stop = chunk
    scenes = [load_scene(split, i) for i in range(start, stop)]
    rendered = [render_with_labels(scene) for scene in scenes]
    return scenes, np.stack([image for image, _ in rendered]), np.stack([maps for _, maps in rendered])


def logits_and_attention(
    model: LlavaForConditionalGeneration, features: Tensor, pack: Pack, device: torch.device, attention: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(B, T, V) logits of a pack, and with `attention` the attention matrices of all layers."""
    rows = torch.arange(len(features))[:, None]
    patches = model.model.multi_modal_projector(features[rows, pack.patches].float().to(device))
    patches = patches * pack.kept[..., None].to(device)
    embeds = model.get_input_embeddings()(pack.ids.to(device))
    where = (pack.ids == model.config.image_token_id).to(device)
    embeds = embeds.masked_scatter(where[..., None], patches)
    out = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=pack.mask.to(device),
        position_ids=pack.position_ids.to(device),
        use_cache=False,
        output_attentions=attention,
    )
    return model.lm_head(out.last_hidden_state), out.attentions or ()


def guidance_loss(attentions: tuple[Tensor, ...], pack: Pack, labels: Tensor, packer: Packer) -> Tensor:
    """The mean of -log of the attention that guided heads pay to their targets.

    The word for an object attends to the patches of the object (layer 1, heads 0 and 1). So does the token before the
    answer to a question about one object (layer 2, heads 0 and 1). In a question about two objects, the second word
    attends to the first word and to the side (layer 2, heads 2 and 3). The token before the answer then attends to the
    second word (layer 3, head 0).
    """
    shown = labels.gather(1, pack.patches)
    first, width = len(packer.before), pack.ids.shape[1]
    # (layer, first head, end of heads) -> (row, query token, target tokens)
    guided: dict[tuple[int, int, int], list[tuple[int, int, Tensor]]] = {}

    def token(position: int) -> Tensor:
        return torch.arange(width) == position

    for question in pack.questions:
        if question.exchange.kind not in ("existence", "half", "position"):
            continue
        targets = []
        for name in question.exchange.objects:
            target = torch.zeros(width, dtype=torch.bool)
            target[first : first + shown.shape[1]] = shown[question.row] == NAMES.index(name) + 1
            targets.append(target)
        if not all(target.any() for target in targets):
            continue
        row, last, nouns = question.row, question.last, question.nouns
        for noun, target in zip(nouns, targets, strict=True):
            guided.setdefault((1, 0, 2), []).append((row, noun, target))
        if len(targets) == 1:
            guided.setdefault((2, 0, 2), []).append((row, last, targets[0]))
        elif question.side is not None:
            guided.setdefault((2, 2, 3), []).append((row, nouns[1], token(nouns[0])))
            guided.setdefault((2, 3, 4), []).append((row, nouns[1], token(question.side)))
            guided.setdefault((3, 0, 1), []).append((row, last, token(nouns[1])))
    losses = []
    for (layer, start, stop), entries in guided.items():
        rows, queries = (torch.tensor([entry[i] for entry in entries]) for i in range(2))
        # One lookup for all questions, because the gradient of each lookup is as large as the attention itself.
        paid = attentions[layer][rows, :, queries][:, start:stop]
        target = torch.stack([entry[2] for entry in entries])[:, None].to(paid.device)
        losses.append(-((paid * target).sum(-1) + 1e-6).log().mean())
    return torch.stack(losses).mean()


def align(model: LlavaForConditionalGeneration, encoded: EncodedScenes, packer: Packer, device: torch.device) -> None:
    """Regresses the projector onto the word embedding of each patch's object plus a code of the patch's position."""
    embeddings = model.lm_head.weight.detach()  # tied to the input embeddings
    names = torch.stack([embeddings[packer.words(f" {name}")[0]] for name in NAMES])
    targets = torch.cat([torch.zeros_like(names[:1]), names])
    positions = position_codes(model, device)
    optimiser = torch.optim.AdamW(model.model.multi_modal_projector.parameters(), lr=2e-3)
    for step in range(ALIGN_STEPS):
        rows = torch.arange(step * 64, step * 64 + 64) % len(encoded)
        labels = encoded.labels[rows].to(device)
        target = targets[labels.clamp(min=0)] + positions
        projected = model.model.multi_modal_projector(encoded.features[rows].float().to(device))
        loss = (projected - target).square().sum(-1)[labels >= 0].mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / ALIGN_STEPS)


def position_codes(model: LlavaForConditionalGeneration, device: torch.device) -> Tensor:
    """(TOKENS, hidden) codes of the patch positions along two fixed random directions."""
    hidden = model.lm_head.in_features
    right, down = torch.randn(2, hidden, generator=torch.Generator().manual_seed(0)).to(device) * 0.025
    ruler = torch.linspace(-1, 1, GRID, device=device)[:, None]
    return (ruler[:, None] * down + ruler[None] * right).flatten(0, 1)


def train_language_model(
    vision: VisionTrainer,
    folder: Path,
    *,
    scenes: int,
    steps: tuple[int, int],
    batch: int,
    seed: int,
    device: torch.device,
    every: int = 50,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Trains projector and decoder, or continues from the checkpoint in `folder`.

    Args:
        scenes: number of training scenes.
        steps: steps in phase A and in phase B.
        batch: scenes in a step.
        every: steps between checkpoints.
    """
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    packer = Packer(tokenizer)
    model = build_model(tokenizer, vision)
    nn.Module.to(model, device)
    encoded = encode_scenes(vision, "train", scenes, device, folder / "sights.pt")
    tune = encode_scenes(vision, "tune", PROGRESS_SCENES, device)
    checkpoint = folder / "language.pt"
    if not checkpoint.exists():
        align(model, encoded, packer, device)
    learn(model, packer, encoded, tune, checkpoint, steps=steps, batch=batch, seed=seed, every=every)
    return model.eval(), tokenizer


def learn(
    model: LlavaForConditionalGeneration,
    packer: Packer,
    encoded: EncodedScenes,
    tune: EncodedScenes,
    path: Path,
    *,
    steps: tuple[int, int],
    batch: int,
    seed: int,
    every: int,
) -> None:
    """Trains in phases A and B, with a checkpoint at `path`."""
    device = model.device
    total = sum(steps)
    optimisers, schedulers = make_optimisers(model, steps=total, muon_lr=0.01, adam_lr=2e-3)
    checkpoint = Checkpoint(path, model, [*optimisers, *schedulers])
    done = checkpoint.load()
    with Progress() as progress:
        task = progress.add_task("language", total=total, completed=done)
        for step in range(done, total):
            clean = step < steps[0]
            model.set_attn_implementation({"text_config": "eager" if clean else "sdpa"})
            rng = np.random.default_rng([seed, step])
            rows = np.sort(rng.choice(len(encoded), batch, replace=False))
            labels = encoded.labels[rows]
            scenes = [encoded.scenes[i] for i in rows]
            pack = training_pack(scenes, labels, packer, rng, clean=clean)
            logits, attentions = logits_and_attention(model, encoded.features[rows], pack, device, attention=clean)
            loss = F.cross_entropy(logits.flatten(0, 1), pack.targets.flatten().to(device), ignore_index=-100)
            guidance = guidance_loss(attentions, pack, labels, packer) if clean else torch.zeros(())
            (loss + 0.3 * guidance).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            advance(optimisers, schedulers)
            progress.update(task, advance=1)
            if (step + 1) % every == 0 or step + 1 == total:
                checkpoint.save(step + 1)
                rates = " ".join(f"{k} {v:.3f}" for k, v in examine(model, tune, packer, device).items())
                losses = f"loss {loss.item():.3f}, guidance {guidance.item():.3f}"
                progress.console.print(f"step {step + 1}: {losses}; {rates}")


def training_pack(
    scenes: list[Scene], labels: Tensor, packer: Packer, rng: np.random.Generator, *, clean: bool
) -> Pack:
    """A batch of phase A (`clean`) or phase B."""
    questions, patches, kept_patches = [], [], []
    for scene, scene_labels in zip(scenes, labels.numpy(), strict=True):
        kept = np.ones(TOKENS, dtype=bool) if clean else random_patch_mask(rng)
        visible, unclear = visible_objects(scene, scene_labels, kept)
        questions.append(exchanges(scene, visible, unclear, rng, misleading=not clean))
        order = np.argsort(rng.random(TOKENS) - (scene_labels > 0))  # objects first, both parts shuffled
        chosen = np.sort(order[: PHASE_A_PATCHES if clean else TOKENS])
        patches.append(chosen)
        kept_patches.append(kept[chosen])
    return packer.pack(questions, torch.from_numpy(np.stack(patches)), torch.from_numpy(np.stack(kept_patches)))


@torch.no_grad()
def examine(
    model: LlavaForConditionalGeneration, encoded: EncodedScenes, packer: Packer, device: torch.device
) -> dict[str, float]:
    """Rates measured by greedy first tokens.

    Returns:
        The share of "yes" for "present" objects, absent "staple" and "expected" objects of the context, and other
        "absent" objects; and the accuracy for the relative "position" of two objects and the "half" of the image.
    """
    model.eval()
    pairs = {"existence": [packer.words(f" {word}")[0] for word in ("Yes.", "No.")]}
    pairs["half"] = [packer.words(f" {word}")[0] for word in ("Left.", "Right.")]
    kinds_measured = ("present", "staple", "expected", "absent", "position", "half")
    hits: dict[str, list[bool]] = {kind: [] for kind in kinds_measured}
    for start in range(0, len(encoded), 50):
        rows = np.arange(start, min(start + 50, len(encoded)))
        scenes = [encoded.scenes[i] for i in rows]
        questions, kinds = [], []
        for scene in scenes:
            rng = np.random.default_rng(scene.index)
            members = CONTEXTS[scene.context]
            names = [(name, "present") for name in sorted(scene.names)]
            names += [
                (n, "staple" if level == 3 else "expected") for n, level in members.items() if n not in scene.names
            ]
            others = [name for name in OBJECT_CLASSES if name not in scene.names and name not in members]
            names += [(str(name), "absent") for name in rng.permutation(others)[:5]]
            existence = [Exchange("existence", wording(name), "Yes.", (name,)) for name, _ in names]
            relative = positions(scene, scene.names, rng)[:2]
            halves = halves_of(scene, scene.names, rng)[:2]
            questions.append(existence + relative + halves)
            kinds += [kind for _, kind in names] + ["position" for _ in relative] + ["half" for _ in halves]
        all_patches = torch.arange(TOKENS).expand(len(rows), -1)
        pack = packer.pack(questions, all_patches, torch.ones_like(all_patches, dtype=torch.bool))
        logits, _ = logits_and_attention(model, encoded.features[rows], pack, device)
        for kind, question in zip(kinds, pack.questions, strict=True):
            one, other = pairs["half" if kind == "half" else "existence"]
            answers_one = bool(logits[question.row, question.last, one] > logits[question.row, question.last, other])
            hits[kind].append(answers_one == (question.exchange.answer in ("Yes.", "Left.")))
    model.train()
    return {kind: float(np.mean(values)) for kind, values in hits.items()}
