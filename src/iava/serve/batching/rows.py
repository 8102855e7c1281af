"""One answer in the making: a row of a batch, and what its client is told."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

from iava.lvlm.answers import Answer
from iava.lvlm.conversation import Conversation
from iava.serve.batching.tokens import Decoding, TextStream, TokenProbability
from iava.serve.errors import ApiError


@dataclass(frozen=True)
class Piece:
    """The next piece of an answer: its text, and the probabilities of its tokens if they were asked for."""

    text: str
    probabilities: list[TokenProbability]


@dataclass(frozen=True)
class Done:
    """The end of an answer.

    Args:
        reason: "stop" at an end token or a stop string, "length" at the token limit.
        prompt_tokens: image tokens included.
        completion_tokens: without the end token.
        answer: with its explanation, if that was asked for.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    answer: Answer | None = None


@dataclass(frozen=True)
class Failed:
    """The end of an answer that went wrong."""

    error: ApiError


Event = Piece | Done | Failed


@dataclass(frozen=True)
class Plan:
    """What rows of one batch have in common: rows with equal plans may be decoded together.

    Args:
        method: command-line name.
        settings: (name, value as JSON) of the method's settings, sorted.
        explain: whether the answer is explained.
        has_images: text-only prompts are decoded apart.
    """

    method: str
    settings: tuple[tuple[str, str], ...]
    explain: bool
    has_images: bool


@dataclass(eq=False)
class Row:
    """A row of a batch.

    Args:
        plan: how it is decoded.
        conversation: what is answered. Equal images of several rows are the same object.
        decoding: how tokens are chosen.
        send: tells the client; may be called from any thread.
        arrived: `time.monotonic()` when the request came.
    """

    plan: Plan
    conversation: Conversation
    decoding: Decoding
    send: Callable[[Event], None]
    arrived: float = field(default_factory=time.monotonic)
    prompt_tokens: int = 0
    tokens: list[int] = field(default_factory=list)
    reason: Literal["stop", "length"] | None = None
    first: float | None = None
    last: float | None = None

    def __post_init__(self) -> None:
        self._left = threading.Event()
        self._text: TextStream | None = None
        self._ends: Collection[int] = ()
        self._held: list[TokenProbability] = []
        self.next_probability: TokenProbability | None = None
        self.is_closed = False  # whether its client was told the end

    def leave(self) -> None:
        """Says that nobody waits for this answer: its row is freed at the next token. For any thread."""
        self._left.set()

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for this answer."""
        return self._left.is_set()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted of this row."""
        return self.is_closed or self.reason is not None or self._left.is_set()

    def begin(self, decode: Callable[[list[int]], str], ends: Collection[int], prompt_tokens: int) -> None:
        """Prepares for the first token.

        Args:
            decode: tokens -> text, without special tokens.
            ends: token ids that end an answer.
            prompt_tokens: of this row.
        """
        self._text = TextStream(decode, self.decoding.stop)
        self._ends, self.prompt_tokens = ends, prompt_tokens

    def take(self, token: int) -> None:
        """Takes the next token of the batch, and sends on what it says."""
        if self.is_over:
            return
        assert self._text is not None
        self.last = time.monotonic()
        self.first = self.first or self.last
        if token in self._ends:
            self._finish("stop")
            return
        self.tokens.append(token)
        if self.next_probability is not None:
            self._held.append(self.next_probability)
        text = self._text.push(token)
        if self._text.stopped:
            self._flush(text)
            self._finish("stop")
        elif len(self.tokens) >= self.decoding.max_new_tokens:
            self._flush(text)
            self._finish("length")
        elif text:
            self._flush(text)

    def done(self, answer: Answer | None = None) -> None:
        """Sends the end, unless nobody waits for it."""
        assert self.reason is not None
        self.is_closed = True
        self.send(Done(self.reason, self.prompt_tokens, len(self.tokens), answer))

    def fail(self, error: ApiError) -> None:
        """Sends an error in place of the end."""
        self.is_closed = True
        self.send(Failed(error))

    def _finish(self, reason: Literal["stop", "length"]) -> None:
        assert self._text is not None
        self._flush(self._text.end())
        self.reason = reason
        # An explanation is there when the whole batch is.
        if not self.plan.explain:
            self.done()

    def _flush(self, text: str) -> None:
        if text or self._held:
            self.send(Piece(text, self._held))
            self._held = []
