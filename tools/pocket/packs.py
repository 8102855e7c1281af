"""Many questions about a scene behind one picture: what the decoder is trained on.

A block mask keeps the questions of a scene apart, so that each is answered as if it were asked alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from iava.pocket.scenes import Scene
from iava.pocket.text import PREFIX, SUFFIX, Exchange
from tools.pocket.train_vision import GRID, NAMES

TOKENS = GRID * GRID


@dataclass
class Asked:
    """Where an exchange stands in a pack: row, tokens for things and for a side, the token before the answer."""

    row: int
    nouns: list[int]
    side: int | None
    last: int
    exchange: Exchange


@dataclass
class Pack:
    """A batch of scenes with their exchanges, ready for the decoder: B scenes, T tokens, P' patches."""

    patches: Tensor  # (B, P') which patches are shown
    kept: Tensor  # (B, P') False where a patch is zeroed
    ids: Tensor  # (B, T)
    places: Tensor  # (B, T) position ids
    mask: Tensor  # (B, 1, T, T) additive
    targets: Tensor  # (B, T) the next token, -100 where there is nothing to learn
    asked: list["Asked"]


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
        self.sides = {self.words(f" {side}")[0] for side in ("left", "right")}

    def pack(self, talks: list[list[Exchange]], patches: Tensor, kept: Tensor) -> Pack:
        shown = patches.shape[1]
        head = [*self.before, *[self.image] * shown, *self.after]
        start = len(self.before) + TOKENS + len(self.after)
        head_places = [*range(len(self.before))]
        rows = []
        asked: list[Asked] = []
        for row, talk in enumerate(talks):
            ids, places, targets, parts = list(head), [], [-100] * len(head), [0] * len(head)
            places = head_places + (len(self.before) + patches[row]).tolist()
            places += range(len(self.before) + TOKENS, start)
            for number, exchange in enumerate(talk, 1):
                question, answer = (
                    self.words(exchange.question + SUFFIX),
                    [*self.words(" " + exchange.answer), self.eos],
                )
                nouns = [len(ids) + i for i, token in enumerate(question) if token in self.nouns]
                side = next((len(ids) + i for i, token in enumerate(question) if token in self.sides), None)
                asked.append(Asked(row, nouns, side, len(ids) + len(question) - 1, exchange))
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
