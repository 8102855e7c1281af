"""A row of a batch: one answer while it is decoded, and the events that its client gets."""

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
    """The next part of an answer: its text, and the probabilities of its tokens if the request wants them."""

    text: str
    probabilities: list[TokenProbability]


@dataclass(frozen=True)
class Done:
    """The end of an answer.

    Args:
        reason: "stop" at an end token or a stop string, "length" at the token limit.
        prompt_tokens: tokens of the prompt, image tokens included.
        completion_tokens: tokens of the answer, without the end token.
        answer: the answer with its explanation, if the request wants that.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    answer: Answer | None = None


@dataclass(frozen=True)
class Failed:
    """The end of an answer that failed."""

    error: ApiError


Event = Piece | Done | Failed


@dataclass(frozen=True)
class RowPlan:
    """How a row is decoded. Rows with equal plans can share a batch.

    Args:
        method: command-line name of the method.
        settings: (name, value as JSON) of the settings, sorted.
        explain: whether the answer is explained.
        has_images: whether the prompt has images.
    """

    method: str
    settings: tuple[tuple[str, str], ...]
    explain: bool
    has_images: bool


@dataclass(eq=False)
class BatchRow:
    """A row of a batch.

    Args:
        plan: how the row is decoded.
        conversation: the messages that are answered. Rows with equal images hold the same image object.
        decoding: how tokens are chosen.
        send: sends an event to the client. Any thread may call it.
        arrived: `time.monotonic()` when the request arrived.
    """

    plan: RowPlan
    conversation: Conversation
    decoding: Decoding
    send: Callable[[Event], None]
    arrived: float = field(default_factory=time.monotonic)
    prompt_tokens: int = 0
    longest: int = 0
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
        self.is_closed = False  # whether the client got the end

    def leave(self) -> None:
        """Marks the answer as unwanted: the row leaves its batch at the next token. Any thread may call it."""
        self._left.set()

    @property
    def is_left(self) -> bool:
        """Whether the client has left."""
        return self._left.is_set()

    @property
    def is_over(self) -> bool:
        """Whether the row needs no more tokens."""
        return self.is_closed or self.reason is not None or self._left.is_set()

    def begin(
        self, decode: Callable[[list[int]], str], ends: Collection[int], prompt_tokens: int, longest: int
    ) -> None:
        """Prepares for the first token.

        Args:
            decode: turns tokens into text without special tokens.
            ends: token ids that end an answer.
            prompt_tokens: number of tokens of the prompt.
            longest: token limit of the answer.
        """
        self._text = TextStream(decode, self.decoding.stop)
        self._ends, self.prompt_tokens, self.longest = ends, prompt_tokens, longest

    def take(self, token: int) -> None:
        """Takes the next token of the batch, and sends its text."""
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
        elif len(self.tokens) >= self.longest:
            self._flush(text)
            self._finish("length")
        elif text:
            self._flush(text)

    def done(self, answer: Answer | None = None) -> None:
        """Sends the end of the answer."""
        assert self.reason is not None
        self.is_closed = True
        self.send(Done(self.reason, self.prompt_tokens, len(self.tokens), answer))

    def fail(self, error: ApiError) -> None:
        """Sends an error as the end of the answer."""
        self.is_closed = True
        self.send(Failed(error))

    def _finish(self, reason: Literal["stop", "length"]) -> None:
        assert self._text is not None
        self._flush(self._text.end())
        self.reason = reason
        # The explanation is made when the whole batch is complete.
        if not self.plan.explain:
            self.done()

    def _flush(self, text: str) -> None:
        if text or self._held:
            self.send(Piece(text, self._held))
            self._held = []
