"""Second stage of the pocket training: words. The eyes are frozen; projector and decoder learn to tell what they see.

Align: the projector maps each patch near the word for what it shows. Phase A: true answers over few patches, with two
heads of two layers pulled onto the thing asked about. Phase B: all patches, misleading text, masked patches, no such
help. A scene's questions are packed behind one picture by a block mask.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from iava.pocket.scenes import CONTEXTS, THINGS, Scene, load_scene
from iava.pocket.text import PREFIX, SUFFIX, Exchange, build_tokenizer, exchanges, existence, positions
from iava.pocket.train_vision import GRID, NAMES, VISION, Checkpoint, Eyes, normalised, optimise, patch_labels, seen

TOKENS = GRID * GRID
CHUNK = 250
FEW = 40  # patches in phase A
ALIGN_STEPS = 600
EXAMINED = 200  # scenes of "tune" on which progress is measured
HELPED = ((1, "noun"), (2, "last"))  # layers whose first two heads are helped, and from which token they look


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


def look(eyes: Eyes, split: str, number: int, device: torch.device) -> Sights:
    starts = range(0, number, CHUNK)
    scenes: list[Scene] = []
    features, things = [], []
    with ProcessPoolExecutor() as pool, torch.no_grad():
        chunks = pool.map(_drawn, [(split, start, min(start + CHUNK, number)) for start in starts])
        for new, images, maps in track(chunks, f"looking at {split}", total=len(starts)):
            scenes += new
            features.append(eyes.features(normalised(images).to(device)).half().cpu())
            things.append(patch_labels(torch.from_numpy(maps))[0])
    return Sights(scenes, torch.cat(features), torch.cat(things))


def _drawn(chunk: tuple[str, int, int]) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    split, start, stop = chunk
    scenes = [load_scene(split, i) for i in range(start, stop)]
    drawn = [seen(scene) for scene in scenes]
    return scenes, np.stack([image for image, _ in drawn]), np.stack([maps for _, maps in drawn])


@dataclass
class Pack:
    """A batch of scenes with their exchanges, ready for the decoder: B scenes, T tokens, P' patches."""

    patches: Tensor  # (B, P') which patches are shown
    kept: Tensor  # (B, P') False where a patch is zeroed
    ids: Tensor  # (B, T)
    places: Tensor  # (B, T) position ids
    mask: Tensor  # (B, 1, T, T) additive
    targets: Tensor  # (B, T) the next token, -100 where there is nothing to learn
    asked: list[tuple[int, int, int, Exchange]]  # row, position of the noun, position before the answer, exchange


class Packer:
    """Turns scenes and exchanges into packs; keeps the token ids of what is said over and over."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.image = tokenizer.image_token_id
        before, after = PREFIX.split("<image>")
        self.before = tokenizer(before)["input_ids"]
        self.after = tokenizer(after, add_special_tokens=False)["input_ids"]
        self.eos = tokenizer.eos_token_id
        self.words: Callable[[str], list[int]] = cache(
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        )
        self.nouns = {self.words(f" {name}")[0] for name in NAMES}

    def pack(self, talks: list[list[Exchange]], patches: Tensor, kept: Tensor) -> Pack:
        shown = patches.shape[1]
        head = [*self.before, *[self.image] * shown, *self.after]
        start = len(self.before) + TOKENS + len(self.after)
        head_places = [*range(len(self.before))]
        rows = []
        asked: list[tuple[int, int, int, Exchange]] = []
        for row, talk in enumerate(talks):
            ids, places, targets, parts = list(head), [], [-100] * len(head), [0] * len(head)
            places = head_places + (len(self.before) + patches[row]).tolist()
            places += range(len(self.before) + TOKENS, start)
            for number, exchange in enumerate(talk, 1):
                question, answer = (
                    self.words(exchange.question + SUFFIX),
                    [*self.words(" " + exchange.answer), self.eos],
                )
                nouns = [i for i, token in enumerate(question) if token in self.nouns]
                asked.append((row, len(ids) + (nouns[0] if nouns else 0), len(ids) + len(question) - 1, exchange))
                said = question + answer[:-1]
                targets += [-100] * (len(question) - 1) + answer
                ids += said
                places += range(start, start + len(said))
                parts += [number] * len(said)
            rows.append((ids, places, targets, parts))
        length = max(len(ids) for ids, *_ in rows)

        def padded(column: int, fill: int) -> Tensor:
            return torch.tensor([row[column] + [fill] * (length - len(row[column])) for row in rows])

        part = padded(3, -1)
        open_ = ((part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)) & torch.ones(
            length, length, dtype=torch.bool
        ).tril()
        mask = torch.zeros(open_.shape).masked_fill(~open_, torch.finfo(torch.float32).min)[:, None]
        return Pack(patches, kept, padded(0, self.eos), padded(1, 0), mask, padded(2, -100), asked)


def masked(rng: np.random.Generator) -> np.ndarray:
    """(TOKENS,) bool: which patches keep their embedding. Two pictures in three are whole; others lose patches here and
    there, or inside, or outside of a rectangle."""
    if rng.random() < 0.65:
        return np.ones(TOKENS, dtype=bool)
    if rng.random() < 0.5:
        return rng.random(TOKENS) < rng.uniform(0.05, 0.9)
    inside = np.zeros((GRID, GRID), dtype=bool)
    (x0, x1), (y0, y1) = (np.sort(rng.integers(0, GRID + 1, 2)) for _ in range(2))
    inside[y0:y1, x0:x1] = True
    return inside.ravel() if rng.random() < 0.5 else ~inside.ravel()


def visible(scene: Scene, things: np.ndarray, kept: np.ndarray) -> tuple[set[str], set[str]]:
    """Names of which half or more of the patches are kept, and names of which too little or too few are to be sure."""
    shown, unsure = set(), set()
    for name in scene.names:
        patches = things == NAMES.index(name) + 1
        share = kept[patches].mean() if patches.any() else 0.3
        if share >= 0.5:
            shown.add(name)
        elif share > 0.15:
            unsure.add(name)
    return shown, unsure


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
    """How far the helped heads are from looking at the thing asked about: mean of -log of the attention it gets."""
    losses = []
    first = len(packer.before)
    for row, noun, last, exchange in pack.asked:
        if exchange.kind != "existence" or exchange.thing is None:
            continue
        thing = sights_things[row, pack.patches[row]] == NAMES.index(exchange.thing) + 1
        if not thing.any():
            continue
        for layer, token in HELPED:
            seen_ = attentions[layer][row, :2, noun if token == "noun" else last, first : first + len(thing)]
            losses.append(-(seen_[:, thing.to(seen_.device)].sum(-1) + 1e-6).log().mean())
    return torch.stack(losses).mean()


def align(model: LlavaForConditionalGeneration, sights: Sights, packer: Packer, device: torch.device) -> None:
    """Regresses the projector onto the words for what patches show, plus a code for each row and column."""
    words = model.lm_head.weight.detach()  # tied to the input embeddings
    code = torch.randn(2, GRID, words.shape[1], generator=torch.Generator().manual_seed(0)).to(device) * 0.02
    names = torch.stack([words[packer.words(f" {name}")[0]] for name in NAMES])
    targets = torch.cat([torch.zeros_like(names[:1]), names])
    where = (code[0][:, None] + code[1][None]).flatten(0, 1)
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


def train_words(
    eyes: Eyes,
    folder: Path,
    *,
    scenes: int,
    steps_a: int,
    steps_b: int,
    batch: int,
    seed: int,
    device: torch.device,
    every: int = 100,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Trains projector and decoder, or goes on from the checkpoint in `folder`, written every so many steps."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    packer = Packer(tokenizer)
    model = build_model(tokenizer, eyes)
    nn.Module.to(model, device)
    sights = look(eyes, "train", scenes, device)
    tune = look(eyes, "tune", EXAMINED, device)
    optimisers, schedulers = optimise(model, steps=steps_a + steps_b, muon_lr=0.01, adam_lr=2e-3)
    checkpoint = Checkpoint(folder / "language.pt", model, [*optimisers, *schedulers])
    done = checkpoint.load()
    if done == 0:
        align(model, sights, packer, device)
    with Progress() as progress:
        task = progress.add_task("language", total=steps_a + steps_b, completed=done)
        for step in range(done, steps_a + steps_b):
            clean = step < steps_a
            model.set_attn_implementation({"text_config": "eager" if clean else "sdpa"})
            rng = np.random.default_rng([seed, step])
            rows = np.sort(rng.choice(len(sights), batch, replace=False))
            things = sights.things[rows]
            pack = _training_pack([sights.scenes[i] for i in rows], things, packer, rng, clean=clean)
            logits, attentions = logits_and_attention(model, sights.features[rows], pack, device, attention=clean)
            loss = F.cross_entropy(logits.flatten(0, 1), pack.targets.flatten().to(device), ignore_index=-100)
            total = loss + 0.3 * helped(attentions, pack, things, packer) if clean else loss
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            for scheduler in schedulers:
                scheduler.step()
            progress.update(task, advance=1)
            if (step + 1) % every == 0 or step + 1 == steps_a + steps_b:
                checkpoint.save(step + 1)
                found = " ".join(f"{k} {v:.3f}" for k, v in examine(model, tune, packer, device).items())
                progress.console.print(f"step {step + 1}: loss {loss.item():.3f}; {found}")
    return model.eval(), tokenizer


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
    the accuracy of left and right."""
    model.eval()
    yes = packer.words(" Yes.")[0]
    no = packer.words(" No.")[0]
    votes: dict[str, list[bool]] = {"present": [], "staple": [], "expected": [], "absent": [], "position": []}
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
            talk = [Exchange("existence", existence(name), "Yes.", name) for name, _ in asked]
            turned = positions(scene, scene.names, rng)[:2]
            talks.append(talk + turned)
            kinds += [kind for _, kind in asked] + ["position" for _ in turned]
        all_patches = torch.arange(TOKENS).expand(len(rows), -1)
        pack = packer.pack(talks, all_patches, torch.ones_like(all_patches, dtype=torch.bool))
        logits, _ = logits_and_attention(model, sights.features[rows], pack, device)
        for kind, (row, _, last, exchange) in zip(kinds, pack.asked, strict=True):
            said_yes = bool(logits[row, last, yes] > logits[row, last, no])
            votes[kind].append(said_yes == (exchange.answer == "Yes."))
    model.train()
    return {kind: float(np.mean(hits)) for kind, hits in votes.items()}
