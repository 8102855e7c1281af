"""Two branches the slow and obvious way, for any family: eager attention, the whole sequence run again, no cache.

Nothing here uses the package that it checks.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from tests import families

Next = Callable[[list[int]], torch.Tensor]


def eager(name: str) -> Any:
    """A copy of a family's model that computes whole attention matrices."""
    model = copy.deepcopy(families.build(name)[0])
    model.set_attn_implementation("eager")
    return model


def reader(model: Any, inputs: dict[str, torch.Tensor]) -> Next:
    """Gives the next token's logits, (V,), after one prompt and some tokens of its answer."""

    def after(tokens: list[int]) -> torch.Tensor:
        new = torch.tensor([tokens], dtype=torch.long)
        longer = dict(inputs)
        # In PaliGemma what is answered is of type 1; elsewhere text is of type 0.
        kind = int(model.config.model_type == "paligemma")
        ends = {"input_ids": new, "attention_mask": torch.ones_like(new), "token_type_ids": torch.full_like(new, kind)}
        for key, end in {**ends, "mm_token_type_ids": torch.zeros_like(new)}.items():
            if key in longer:
                longer[key] = torch.cat([longer[key], end], dim=1)
        with torch.no_grad():
            return model(**longer, use_cache=False).logits[0, -1]

    return after


def decode(full: Next, negative: Next, combine: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor], steps: int):
    """The best tokens, one after the other; `combine` gets both rows and the number of the token, from 1."""
    tokens: list[int] = []
    while len(tokens) < steps and 2 not in tokens:
        tokens.append(int(combine(full(tokens), negative(tokens), len(tokens) + 1).argmax()))
    return tokens


def answers(inputs: dict[str, torch.Tensor], found: torch.Tensor) -> list[list[int]]:
    """What was answered to each prompt, up to the end token."""
    rows = found[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]
