"""An image that is kept, so that later questions about it cost only their own tokens."""

import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from iava.engine.prefix_cache import Memory
from iava.lvlm.answers import Answer
from iava.lvlm.decoding import BatchDecoder, Request
from iava.lvlm.inputs import Inputs
from iava.methods.base import Method


class ImageSession:
    """An image and its prefix cache. `LVLM.read` makes it.

    The vision tower encodes the image once. The decoder computes its keys and values, and its attention under a general
    instruction, once. Each question then costs the tokens behind the image.

    Args:
        decoder: of the model that is asked.
        picture: the image, RGB.
        cache: prefix cache of this image; None keeps nothing between calls.
    """

    def __init__(self, decoder: BatchDecoder, picture: Image.Image, cache: Memory | None) -> None:
        self.picture = picture
        self.memory = cache
        self.inputs = Inputs(decoder.model, decoder.processor, picture)
        self._decoder = decoder

    def ask(
        self,
        question: str,
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> Answer:
        """Asks one question; see `LVLM.ask_many`."""
        request = Request(method, max_new_tokens, explain, seed, settings)
        return self._decoder.answers(self.inputs, self.memory, [question], request, time.perf_counter())[0]

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        **settings: Any,
    ) -> list[Answer]:
        """Asks several independent questions in one batch; see `LVLM.ask_many`."""
        request = Request(method, max_new_tokens, explain, seed, settings)
        return self._decoder.answers(self.inputs, self.memory, questions, request, time.perf_counter())
