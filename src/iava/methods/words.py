"""What a prompt says."""

import torch
from transformers import PreTrainedTokenizerBase


def says(ids: torch.Tensor, text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a prompt's tokens (S,) hold a text, spaces aside: tokens may or may not carry them."""
    # Words that the tokenizer does not know are unknown in the prompt, too.
    known = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    return "".join(str(known).split()) in "".join(str(tokenizer.decode(ids)).split())
