"""An image that is kept, so that later questions about it cost only their own tokens."""

import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from iava.engine.caches.prefix_cache import PrefixCache
from iava.errors import IavaError
from iava.lvlm.answers import Answer
from iava.lvlm.conversation import Message, read_conversation
from iava.lvlm.decoding import BatchDecoder, Request
from iava.lvlm.generation import Generation
from iava.lvlm.inputs import Inputs
from iava.methods.base import Method

SESSION_BYTES = 1_000_000_000
"""Of what a session keeps of its image for later questions."""


class ImageSession:
    """An image and its prefix cache. `LVLM.read` makes it.

    The vision tower encodes the image once. The decoder computes its keys and values, and its attention under a general
    instruction, once. Each question then costs the tokens behind the image.

    Args:
        decoder: of the model that is asked.
        picture: the image, RGB.
        cache: prefix cache of this image; None keeps nothing between calls.
        max_bytes: of the prefix cache after a call, see `LVLM.read`.
    """

    def __init__(
        self, decoder: BatchDecoder, picture: Image.Image, cache: PrefixCache | None, max_bytes: int = SESSION_BYTES
    ) -> None:
        self.picture = picture
        self.memory = cache
        self.inputs = Inputs(decoder.model, decoder.processor, picture)
        self._decoder = decoder
        self._max_bytes = max_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, values and attention that are kept for later questions; see `LVLM.read` for the limit."""
        return 0 if self.memory is None else self.memory.nbytes

    def ask(
        self,
        question: str | Sequence[Message],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> Answer:
        """Asks one question, or goes on with a conversation; see `LVLM.ask_many`."""
        request = Request(method, max_new_tokens, explain, seed, generation, settings)
        return self.answers([question], request)[0]

    def ask_many(
        self,
        questions: Sequence[str | Sequence[Message]],
        *,
        method: str | Method = "iava",
        max_new_tokens: int = 32,
        explain: bool = False,
        seed: int | None = None,
        generation: Generation = None,
        **settings: Any,
    ) -> list[Answer]:
        """Asks several independent questions in one batch; see `LVLM.ask_many`."""
        return self.answers(questions, Request(method, max_new_tokens, explain, seed, generation, settings))

    def answers(
        self, questions: Sequence[str | Sequence[Message]], request: Request, start: float | None = None
    ) -> list[Answer]:
        """Answers questions; the time of the answers counts from `start`, or from now."""
        start = time.perf_counter() if start is None else start
        if isinstance(questions, str):
            raise IavaError("questions is one string: give a list of questions, or use ask")
        conversations = [read_conversation(question, [self.picture], read=self._own) for question in questions]
        answers = self._decoder.answers(self.inputs, self.memory, conversations, request, start)
        if self.memory is not None:
            self.memory.trim(self._max_bytes)
        return answers

    def _own(self, source: Any) -> Image.Image:
        if source is not self.picture:
            raise IavaError("the messages show an image of their own: use chat for several images")
        return self.picture
