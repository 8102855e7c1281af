"""Packed training sequences: all questions about a scene follow one image.

A block mask separates the questions of a scene, so that each is answered as if it were asked alone.
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
class PackedQuestion:
    """The position of an exchange in a pack.

    Args:
        row: the scene.
        nouns: positions of the object classes in the question.
        side: position of "left" or "right", or None.
        last: position of the last token before the answer.
        exchange: the exchange.
    """

    row: int
    nouns: list[int]
    side: int | None
    last: int
    exchange: Exchange


@dataclass
class Pack:
    """A batch of B scenes with their exchanges: T tokens, of which P are image tokens.

    Args:
        patches: (B, P) indices of the patches that are shown.
        kept: (B, P) bool, False where a patch's embedding is zeroed.
        ids: (B, T) token ids.
        position_ids: (B, T).
        mask: (B, 1, T, T) additive attention mask.
        targets: (B, T) the next token, or -100 where no token is learned.
        questions: the position of each exchange.
    """

    patches: Tensor
    kept: Tensor
    ids: Tensor
    position_ids: Tensor
    mask: Tensor
    targets: Tensor
    questions: list[PackedQuestion]


class Packer:
    """Builds packs from exchanges. Caches the token ids of repeated texts."""

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

    def pack(self, exchanges: list[list[Exchange]], patches: Tensor, kept: Tensor) -> Pack:
        """Packs the exchanges of each scene. See `Pack` for `patches` and `kept`."""
        head = [*self.before, *[self.image] * patches.shape[1], *self.after]
        start = len(self.before) + TOKENS + len(self.after)
        rows = []
        questions: list[PackedQuestion] = []
        for row, of_scene in enumerate(exchanges):
            ids, targets, blocks = list(head), [-100] * len(head), [0] * len(head)
            position_ids = [*range(len(self.before)), *(len(self.before) + patches[row]).tolist()]
            position_ids += range(len(self.before) + TOKENS, start)
            for number, exchange in enumerate(of_scene, 1):
                question, answer = (
                    self.words(exchange.question + SUFFIX),
                    [*self.words(" " + exchange.answer), self.eos],
                )
                nouns = [len(ids) + i for i, token in enumerate(question) if token in self.nouns]
                side = next((len(ids) + i for i, token in enumerate(question) if token in self.sides), None)
                last = len(ids) + len(question) - 1
                questions.append(PackedQuestion(row, nouns, side, last, exchange))
                inputs = question + answer[:-1]
                targets += [-100] * (len(question) - 1) + answer
                ids += inputs
                position_ids += range(start, start + len(inputs))
                blocks += [number] * len(inputs)
            rows.append((ids, position_ids, targets, blocks))
        length = max(len(ids) for ids, *_ in rows)

        def padded(column: int, fill: int) -> Tensor:
            return torch.tensor([row[column] + [fill] * (length - len(row[column])) for row in rows])

        block = padded(3, -1)
        same_block = (block[:, :, None] == block[:, None, :]) | (block[:, None, :] == 0)
        allowed = same_block & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
        return Pack(patches, kept, padded(0, self.eos), padded(1, 0), mask, padded(2, -100), questions)


def random_patch_mask(rng: np.random.Generator) -> np.ndarray:
    """(TOKENS,) bool, True for patches that keep their embedding.

    Two images in three keep all patches. The others lose single patches, or all inside or outside of a rectangle.
    """
    if rng.random() < 0.65:
        return np.ones(TOKENS, dtype=bool)
    if rng.random() < 0.5:
        return rng.random(TOKENS) < rng.uniform(0.05, 0.9)
    inside = np.zeros((GRID, GRID), dtype=bool)
    (x0, x1), (y0, y1) = (np.sort(rng.integers(0, GRID + 1, 2)) for _ in range(2))
    inside[y0:y1, x0:x1] = True
    return inside.ravel() if rng.random() < 0.5 else ~inside.ravel()


def visible_objects(scene: Scene, labels: np.ndarray, kept: np.ndarray) -> tuple[set[str], set[str]]:
    """The object classes with at least half of their patches kept, and those with 15 to 50 %, which are unclear.

    Args:
        labels: (TOKENS,) object label of each patch.
        kept: (TOKENS,) bool.
    """
    visible, unclear = set(), set()
    for name in scene.names:
        patches = labels == NAMES.index(name) + 1
        share = kept[patches].mean() if patches.any() else 0.3
        if share >= 0.5:
            visible.add(name)
        elif share > 0.15:
            unclear.add(name)
    return visible, unclear
