"""What prompts and answers say, as tokens."""

import torch
from transformers import PreTrainedTokenizerBase

from iava.errors import IavaError


def says(ids: torch.Tensor, text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt's tokens (S,) hold a text, spaces aside: tokens may or may not carry them."""
    # Words that the tokenizer does not know are unknown in the prompt, too.
    known = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    return "".join(str(known).split()) in "".join(str(tokenizer.decode(ids)).split())


def yes_no_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens with which an answer of yes or no begins, in every spelling that the tokenizer knows.

    Spelled as Yes, yes, YES, with and without a space before. A first token that two words share, that is unknown,
    or that is no letter of the word (a lone space) says neither.

    Returns:
        (yes ids, no ids), sorted, disjoint.

    Raises:
        IavaError: if the tokenizer has no token for one of the two.
    """
    yes, no = (
        {id for spelling in (word, word.lower(), word.upper()) for id in first_ids(tokenizer, spelling)}
        for word in ("Yes", "No")
    )
    if not yes or not no:
        raise IavaError("the tokenizer has no single token for yes or for no, so the two cannot be compared")
    return sorted(yes), sorted(no)


def first_ids(tokenizer: PreTrainedTokenizerBase, word: str) -> set[int]:
    """The tokens that are a word, with and without a space before. Empty if none is: the word has several tokens."""
    spelled = (tokenizer.encode(text, add_special_tokens=False) for text in (word, " " + word))
    return {ids[0] for ids in spelled if ids and str(tokenizer.decode(ids[:1])).strip() == word}


def yes_no_logits(logits: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """The logits of an answer that begins with yes, and with no: (B, V) -> (B, 2), summed over spellings.

    The difference of the two columns is the log odds of yes against no.

    Args:
        logits: (B, V), such as `Answer.logits[None]`.
        tokenizer: the model's tokenizer.
    """
    return torch.stack([logits[:, ids].logsumexp(dim=-1) for ids in yes_no_ids(tokenizer)], dim=-1)
