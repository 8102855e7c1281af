"""Controls of a caption's length: they hallucinate less by saying less, and know nothing about the image."""

import math
from dataclasses import dataclass, field

import torch
from transformers import ProcessorMixin

from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole
from iava.methods.words import first_ids


@dataclass(eq=False)
class _Ending(Method):
    """A method that treats the tokens which end an answer in a way of their own."""

    control = True

    def _end_ids(self) -> list[int]:
        if not self.ends:
            raise IavaError(f"{self.name} has no token that ends an answer: give generate an eos_token_id")
        return list(self.ends)


@dataclass(eq=False)
class EndBias(_Ending):
    """A constant added at every step to the logits of the tokens that end a caption.

    A caption that lists things ends its list with a word: "a dog, a cat and a tree". Where captions are such lists,
    `words` names that word too, because the end token comes only after it.

    Args:
        bias: any finite number. Above 0 captions get shorter, below 0 longer.
        words: words that get the same constant, separated by blanks, such as "and".
        processor: the model's processor, which knows the tokens of the words.

    Raises:
        IavaError: if the bias is not finite; on decoding, if no token begins a word, or nothing ends an answer.
    """

    bias: float = 0.0
    words: str = ""
    processor: ProcessorMixin | None = field(default=None, repr=False)

    name, title = "end-bias", "end bias"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bias", self.bias, low=-math.inf)

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        biased = main.clone()
        biased[:, sorted({*self._end_ids(), *self._word_ids()})] += self.bias
        return biased

    def _word_ids(self) -> list[int]:
        if self.words and self.processor is None:
            raise IavaError("EndBias has no processor to find words with: use EndBias(bias, words, processor)")
        found = []
        for word in self.words.split():
            ids = first_ids(self.processor.tokenizer, word)  # type: ignore[union-attr]
            if not ids:
                raise IavaError(f"words is {self.words!r}: the tokenizer has no single token for {word!r}")
            found += sorted(ids)
        return found


@dataclass(eq=False)
class TokenLimit(_Ending):
    """Captions that end after a number of tokens, in the middle of a sentence if need be.

    The tokens are those of `generate(max_new_tokens=...)`; as a method, the limit can be compared with others.

    Args:
        tokens: the largest number of new tokens, at least 1.

    Raises:
        IavaError: if the number is out of range; on decoding, if nothing ends an answer.
    """

    tokens: int = 16

    name, title = "token-limit", "token limit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("tokens", self.tokens, low=1)

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        ends = self._end_ids()
        if step < self.tokens:
            return main
        ended = torch.full_like(main, -math.inf)
        ended[:, ends] = main[:, ends]
        return ended
