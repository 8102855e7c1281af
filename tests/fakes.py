"""A model without weights: its answers are decided by image, question and method, so that runs can be compared."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field

import torch
from PIL import Image

from iava.lvlm.answers import Answer
from iava.methods import METHODS
from tests import tiny


@dataclass
class FakeLVLM:
    """Says yes or no (or names two things) by chance, but always the same.

    `asked` lists (method, question); after `stop_after` many it dies.
    """

    stop_after: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    revision: str | None = None
    generation_notes: dict = field(default_factory=dict)

    def __post_init__(self):
        self.processor = tiny.processor()
        self.model = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)

    def method(self, name, **settings):
        return METHODS[name](**settings)

    def prompt(self, question, system=None):
        return f"{system or ''}USER: <image> {question}"

    def ask_many(self, image, questions, *, method, max_new_tokens, seed):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        # Messages, where there is a system prompt.
        questions = [one if isinstance(one, str) else one[-1]["content"][-1]["text"] for one in questions]
        self.asked += [(method.name, question) for question in questions]
        return [self._answer(image, question, method, seed) for question in questions]

    def chat_many(self, conversations, *, images, method, max_new_tokens, seed):
        """Answers as about the first image, or about a grey one if there is none."""
        answers = []
        for [turn], shown in zip(conversations, images, strict=True):
            *kinds, text = turn["content"]
            assert [kind["type"] for kind in kinds] == ["image"] * len(shown)
            picture = shown[0] if shown else Image.new("RGB", (8, 8), "grey")
            settings = {"method": method, "max_new_tokens": max_new_tokens, "seed": seed}
            answers += self.ask_many(picture, [text["text"]], **settings)
        return answers

    def _answer(self, image, question, method, seed):
        drawn = seed if method.name == "sample" else method.name == "iava"
        luck = random.Random(f"{zlib.crc32(image.tobytes())} {question} {drawn}")
        margin = luck.gauss(0.3, 2) + method.settings().get("bias", 0.0)
        text = "maybe" if luck.random() < 0.05 else "Yes." if margin > 0 else "No."
        if not question.endswith("?"):
            text = "A {} and a {}.".format(*luck.sample(["dog", "cow", "cup", "tree", "car"], 2))
        logits = torch.zeros(len(self.processor.tokenizer))
        for word, logit in (("Yes", margin), ("No", 0.0)):
            logits[self.processor.tokenizer.convert_tokens_to_ids([word, word.lower(), word.upper()])] = logit
        return Answer(text, [], method.name, method.settings(), 0.25, logits)
