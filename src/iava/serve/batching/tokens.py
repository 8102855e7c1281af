"""Tokens of an answer: how they are chosen, and the text that can be sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 8  # earlier tokens that are decoded again, because the text of a token may depend on them


class TextStream:
    """Turns tokens into text as they arrive, up to a stop string.

    Text that was returned is final. An incomplete character, trailing white space and the beginning of a stop string
    are therefore held back. The parts together are the whole text without white space around it.

    Args:
        decode: turns tokens into text without special tokens.
        stop: strings that end the answer; they are not part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        self._settled = 0  # tokens whose text is in `_text` for good
        self._text = ""
        self._sent = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """The text that was returned so far."""
        return self._text[: self._sent]

    def push(self, token: int) -> str:
        """Takes the next token, and returns the text that can be sent now."""
        if self.stopped:
            return ""
        self._ids.append(token)
        start = max(self._settled - _CONTEXT, 0)
        before = self._decode(self._ids[start : self._settled])
        after = self._decode(self._ids[start:])
        if after.endswith(_INCOMPLETE):
            return ""
        return self._take(after[len(before) :])

    def end(self) -> str:
        """Ends the answer, and returns the text that was held back."""
        if self.stopped:
            return ""
        start = max(self._settled - _CONTEXT, 0)
        before = self._decode(self._ids[start : self._settled])
        part = self._take(self._decode(self._ids[start:])[len(before) :])
        return part if self.stopped else part + self._send(len(self._text.rstrip()))

    def _take(self, new: str) -> str:
        self._settled = len(self._ids)
        searched = len(self._text)
        self._text += new if self._text else new.lstrip()
        found = [at for word in self._stop if (at := self._text.find(word, max(searched - len(word), 0))) >= 0]
        if found:
            self.stopped = True
            self._text = self._text[: min(found)]
            return self._send(len(self._text.rstrip()))
        kept = len(self._text.rstrip())
        for word in self._stop:
            overlap = next((n for n in range(len(word) - 1, 0, -1) if self._text.endswith(word[:n])), 0)
            kept = min(kept, len(self._text) - overlap)
        return self._send(len(self._text[:kept].rstrip()))

    def _send(self, end: int) -> str:
        part = self._text[self._sent : end]
        self._sent = max(self._sent, end)
        return part


@dataclass(frozen=True)
class Decoding:
    """How the tokens of an answer are chosen, with any method.

    Args:
        max_new_tokens: at least 1. None: as many as the server and the positions of the model allow.
        temperature: 0 takes the most probable token. None: the method decides.
        top_p: above 0 and at most 1; see `Sample`.
        seed: seed of the draws. None: each answer is drawn anew.
        stop: strings that end the answer.
        top_logprobs: number of alternatives that are reported for each token. None: no probabilities are reported.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenProbability:
    """A token of an answer with its probability after the contrast and the plausibility constraint.

    Args:
        token: token id.
        logprob: natural logarithm of the probability.
        top: (token id, logprob) of the most probable tokens, best first.
    """

    token: int
    logprob: float
    top: list[tuple[int, float]]
