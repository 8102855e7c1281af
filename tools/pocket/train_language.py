"""Second stage of the pocket training: words. The eyes are frozen; projector and decoder learn to tell what they see.

Align: the projector maps each patch near the word for what it shows. Phase A: true answers over few patches, with two
heads of two layers pulled onto the thing asked about. Phase B: all patches, misleading text, masked patches, no such
help. A scene's questions are packed behind one picture (see `packs`).
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
from iava.pocket.scenes import CONTEXTS, THINGS, Scene, load_scene
from iava.pocket.text import Exchange, build_tokenizer, exchanges, halves_of, positions
from tools.pocket.packs import TOKENS, Pack, Packer, masked, visible
from tools.pocket.train_vision import (
    GRID,
    NAMES,
    VISION,
    Checkpoint,
    Eyes,
    advance,
    normalised,
    optimise,
    patch_labels,
    seen,
)

CHUNK = 250
FEW = 40  # patches in phase A
ALIGN_STEPS = 600
EXAMINED = 200  # scenes of "tune" on which progress is measured


def build_model(tokenizer: PreTrainedTokenizerFast, eyes: Eyes) -> LlavaForConditionalGeneration:
    """An untrained pocket LLaVA that sees with `eyes`."""
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
    model.model.vision_tower.load_state_dict(eyes.tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


@dataclass
class Sights:
    """What the frozen eyes saw: features (n, TOKENS, hidden) in half precision, each patch's thing (n, TOKENS)."""

    scenes: list[Scene]
    features: Tensor
    things: Tensor

    def __len__(self) -> int:
        return len(self.scenes)


def look(eyes: Eyes, split: str, number: int, device: torch.device, saved: Path | None = None) -> Sights:
    """What the eyes see of a split's first scenes; kept in the file `saved`, and taken from there the next time."""
    if saved is not None and saved.exists():
        features, things = torch.load(saved, weights_only=True, mmap=True)
        return Sights([load_scene(split, i) for i in track(range(number), f"scenes of {split}")], features, things)
    starts = range(0, number, CHUNK)
    scenes: list[Scene] = []
    features, things = [], []
    with ProcessPoolExecutor() as pool, torch.no_grad():
        chunks = pool.map(_drawn, [(split, start, min(start + CHUNK, number)) for start in starts])
        for new, images, maps in track(chunks, f"looking at {split}", total=len(starts)):
            scenes += new
            features.append(eyes.features(normalised(images).to(device)).half().cpu())
            things.append(patch_labels(torch.from_numpy(maps))[0])
    seen_ = torch.cat(features), torch.cat(things)
    if saved is not None:
        torch.save(seen_, saved.with_suffix(".new"))
        saved.with_suffix(".new").replace(saved)
    return Sights(scenes, *seen_)


def _drawn(chunk: tuple[str, int, int]) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    split, start, stop = chunk
    scenes = [load_scene(split, i) for i in range(start, stop)]
    drawn = [seen(scene) for scene in scenes]
    return scenes, np.stack([image for image, _ in drawn]), np.stack([maps for _, maps in drawn])


def logits_and_attention(
    model: LlavaForConditionalGeneration, features: Tensor, pack: Pack, device: torch.device, attention: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    rows = torch.arange(len(features))[:, None]
    patches = model.model.multi_modal_projector(features[rows, pack.patches].float().to(device))
    patches = patches * pack.kept[..., None].to(device)
    embeds = model.get_input_embeddings()(pack.ids.to(device))
    where = (pack.ids == model.config.image_token_id).to(device)
    embeds = embeds.masked_scatter(where[..., None], patches)
    out = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=pack.mask.to(device),
        position_ids=pack.places.to(device),
        use_cache=False,
        output_attentions=attention,
    )
    return model.lm_head(out.last_hidden_state), out.attentions or ()


def helped(attentions: tuple[Tensor, ...], pack: Pack, sights_things: Tensor, packer: Packer) -> Tensor:
    """How far the helped heads are from looking where they should: mean of -log of the attention that gets there.

    A word for a thing looks at the thing (layer 1, heads 0 and 1), as does the token before the answer to a question
    about one thing (layer 2). In a question about two, the second word looks at the first and at the side (layer 2,
    heads 2 and 3), and the token before the answer at the second word (layer 3, head 0).
    """
    shown = sights_things.gather(1, pack.patches)
    first, width = len(packer.before), pack.ids.shape[1]
    # (layer, first head, end of heads) -> row, token, target
    looks: dict[tuple[int, int, int], list[tuple[int, int, Tensor]]] = {}

    def token(position: int) -> Tensor:
        return torch.arange(width) == position

    for asked in pack.asked:
        if asked.exchange.kind not in ("existence", "half", "position"):
            continue
        targets = []
        for name in asked.exchange.things:
            target = torch.zeros(width, dtype=torch.bool)
            target[first : first + shown.shape[1]] = shown[asked.row] == NAMES.index(name) + 1
            targets.append(target)
        if not all(target.any() for target in targets):
            continue
        for noun, target in zip(asked.nouns, targets, strict=True):
            looks.setdefault((1, 0, 2), []).append((asked.row, noun, target))
        if len(targets) == 1:
            looks.setdefault((2, 0, 2), []).append((asked.row, asked.last, targets[0]))
        elif asked.side is not None:
            looks.setdefault((2, 2, 3), []).append((asked.row, asked.nouns[1], token(asked.nouns[0])))
            looks.setdefault((2, 3, 4), []).append((asked.row, asked.nouns[1], token(asked.side)))
            looks.setdefault((3, 0, 1), []).append((asked.row, asked.last, token(asked.nouns[1])))
    losses = []
    for (layer, start, stop), entries in looks.items():
        rows, queries = (torch.tensor([entry[i] for entry in entries]) for i in range(2))
        # One look-up for all questions: each one's gradient is as large as the attention itself.
        paid = attentions[layer][rows, :, queries][:, start:stop]
        target = torch.stack([entry[2] for entry in entries])[:, None].to(paid.device)
        losses.append(-((paid * target).sum(-1) + 1e-6).log().mean())
    return torch.stack(losses).mean()


def align(model: LlavaForConditionalGeneration, sights: Sights, packer: Packer, device: torch.device) -> None:
    """Regresses the projector onto the words for what patches show, plus how far right and down they are."""
    words = model.lm_head.weight.detach()  # tied to the input embeddings
    names = torch.stack([words[packer.words(f" {name}")[0]] for name in NAMES])
    targets = torch.cat([torch.zeros_like(names[:1]), names])
    where = directions(model, device)
    optimiser = torch.optim.AdamW(model.model.multi_modal_projector.parameters(), lr=2e-3)
    for step in range(ALIGN_STEPS):
        rows = torch.arange(step * 64, step * 64 + 64) % len(sights)
        things = sights.things[rows].to(device)
        wanted = targets[things.clamp(min=0)] + where
        error = (model.model.multi_modal_projector(sights.features[rows].float().to(device)) - wanted).square().sum(-1)
        loss = error[things >= 0].mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / ALIGN_STEPS)


def directions(model: LlavaForConditionalGeneration, device: torch.device) -> Tensor:
    """(TOKENS, hidden): for each patch how far right and down it is, along two fixed random directions."""
    hidden = model.lm_head.in_features
    right, down = torch.randn(2, hidden, generator=torch.Generator().manual_seed(0)).to(device) * 0.025
    ruler = torch.linspace(-1, 1, GRID, device=device)[:, None]
    return (ruler[:, None] * down + ruler[None] * right).flatten(0, 1)


def train_words(
    eyes: Eyes,
    folder: Path,
    *,
    scenes: int,
    steps: tuple[int, int],
    batch: int,
    seed: int,
    device: torch.device,
    every: int = 50,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Trains projector and decoder, `steps` in phases A and B; goes on from the checkpoint in `folder`."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    packer = Packer(tokenizer)
    model = build_model(tokenizer, eyes)
    nn.Module.to(model, device)
    sights = look(eyes, "train", scenes, device, folder / "sights.pt")
    tune = look(eyes, "tune", EXAMINED, device)
    checkpoint = folder / "language.pt"
    if not checkpoint.exists():
        align(model, sights, packer, device)
    learn(model, packer, sights, tune, checkpoint, steps=steps, batch=batch, seed=seed, every=every)
    return model.eval(), tokenizer


def learn(
    model: LlavaForConditionalGeneration,
    packer: Packer,
    sights: Sights,
    tune: Sights,
    path: Path,
    *,
    steps: tuple[int, int],
    batch: int,
    seed: int,
    every: int,
) -> None:
    """The steps of phases A and B, with a checkpoint at `path` every so many."""
    device = model.device
    total = sum(steps)
    optimisers, schedulers = optimise(model, steps=total, muon_lr=0.01, adam_lr=2e-3)
    checkpoint = Checkpoint(path, model, [*optimisers, *schedulers])
    done = checkpoint.load()
    with Progress() as progress:
        task = progress.add_task("language", total=total, completed=done)
        for step in range(done, total):
            clean = step < steps[0]
            model.set_attn_implementation({"text_config": "eager" if clean else "sdpa"})
            rng = np.random.default_rng([seed, step])
            rows = np.sort(rng.choice(len(sights), batch, replace=False))
            things = sights.things[rows]
            scenes = [sights.scenes[i] for i in rows]
            pack = _training_pack(scenes, things, packer, rng, clean=clean)
            logits, attentions = logits_and_attention(model, sights.features[rows], pack, device, attention=clean)
            loss = F.cross_entropy(logits.flatten(0, 1), pack.targets.flatten().to(device), ignore_index=-100)
            astray = helped(attentions, pack, things, packer) if clean else torch.zeros(())
            (loss + 0.3 * astray).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            advance(optimisers, schedulers)
            progress.update(task, advance=1)
            if (step + 1) % every == 0 or step + 1 == total:
                checkpoint.save(step + 1)
                found = " ".join(f"{k} {v:.3f}" for k, v in examine(model, tune, packer, device).items())
                progress.console.print(f"step {step + 1}: loss {loss.item():.3f}, astray {astray.item():.3f}; {found}")


def _training_pack(
    scenes: list[Scene], things: Tensor, packer: Packer, rng: np.random.Generator, *, clean: bool
) -> Pack:
    talks, patches, kepts = [], [], []
    for scene, shown_things in zip(scenes, things.numpy(), strict=True):
        kept = np.ones(TOKENS, dtype=bool) if clean else masked(rng)
        shown, unsure = visible(scene, shown_things, kept)
        talks.append(exchanges(scene, shown, unsure, rng, misleading=not clean))
        order = np.argsort(rng.random(TOKENS) - (shown_things > 0))  # things first, each part shuffled
        chosen = np.sort(order[: FEW if clean else TOKENS])
        patches.append(chosen)
        kepts.append(kept[chosen])
    return packer.pack(talks, torch.from_numpy(np.stack(patches)), torch.from_numpy(np.stack(kepts)))


@torch.no_grad()
def examine(
    model: LlavaForConditionalGeneration, sights: Sights, packer: Packer, device: torch.device
) -> dict[str, float]:
    """A quick look at greedy first tokens: share of "yes" to present, expected but absent, and other absent things, and
    the accuracy of left and right, of two things and in the picture."""
    model.eval()
    pairs = {"existence": [packer.words(f" {word}")[0] for word in ("Yes.", "No.")]}
    pairs["half"] = [packer.words(f" {word}")[0] for word in ("Left.", "Right.")]
    votes: dict[str, list[bool]] = {
        "present": [],
        "staple": [],
        "expected": [],
        "absent": [],
        "position": [],
        "half": [],
    }
    for start in range(0, len(sights), 50):
        rows = np.arange(start, min(start + 50, len(sights)))
        scenes = [sights.scenes[i] for i in rows]
        talks, kinds = [], []
        for scene in scenes:
            rng = np.random.default_rng(scene.index)
            members = CONTEXTS[scene.context]
            asked = [(name, "present") for name in sorted(scene.names)]
            asked += [
                (n, "staple" if level == 3 else "expected") for n, level in members.items() if n not in scene.names
            ]
            others = [name for name in THINGS if name not in scene.names and name not in members]
            asked += [(str(name), "absent") for name in rng.permutation(others)[:5]]
            talk = [Exchange("existence", wording(name), "Yes.", (name,)) for name, _ in asked]
            turned = positions(scene, scene.names, rng)[:2]
            sides = halves_of(scene, scene.names, rng)[:2]
            talks.append(talk + turned + sides)
            kinds += [kind for _, kind in asked] + ["position" for _ in turned] + ["half" for _ in sides]
        all_patches = torch.arange(TOKENS).expand(len(rows), -1)
        pack = packer.pack(talks, all_patches, torch.ones_like(all_patches, dtype=torch.bool))
        logits, _ = logits_and_attention(model, sights.features[rows], pack, device)
        for kind, asked_ in zip(kinds, pack.asked, strict=True):
            one, other = pairs["half" if kind == "half" else "existence"]
            said_one = bool(logits[asked_.row, asked_.last, one] > logits[asked_.row, asked_.last, other])
            votes[kind].append(said_one == (asked_.exchange.answer in ("Yes.", "Left.")))
    model.train()
    return {kind: float(np.mean(hits)) for kind, hits in votes.items()}
