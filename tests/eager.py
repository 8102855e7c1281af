"""Attention written out, so that a test can alter it: the whole sequence run again for each token, no cache.

Nothing here uses the package that it checks.
"""

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from tests import families
from tests.test_families import Reference, decoder

Edit = Callable[[int, torch.Tensor], torch.Tensor]
"""(layer, scores (heads, S, S) with the mask in them) -> scores."""


class Altered(Reference):
    """One prompt of one family, and what a model with altered attention says to it."""

    def __init__(self, name: str, question: str, pictures: list[Image.Image]) -> None:
        model, _ = families.build(name)
        self.model: Any = copy.deepcopy(model)
        self.model.set_attn_implementation("eager")
        self.inputs = families.inputs(name, (question, pictures))
        ids = self.inputs["input_ids"][0]
        self.length = len(ids)
        self.image = (ids == self.model.config.image_token_id).nonzero().flatten().tolist()

    def run(self, tokens: list[int], edit: Edit) -> tuple[torch.Tensor, dict[str, Any]]:
        """(V,) the next token's logits, and by layer what was seen: "weights" (heads, S, S), "values" (heads, S, d)."""
        layers = decoder(self.model).layers
        home = sys.modules[type(layers[0].self_attn).__module__]
        usual = home.eager_attention_forward
        seen: dict[str, Any] = {"weights": {}, "values": {}}

        def attention(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
            if module not in [layer.self_attn for layer in layers]:
                # A vision tower of the same file.
                return usual(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
            groups = query.shape[1] // key.shape[1]
            key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
            scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * scaling
            if softcap is not None:
                scores = softcap * (scores / softcap).tanh()
            if attention_mask is not None:
                scores = scores + attention_mask
            weights = edit(module.layer_idx, scores[0]).softmax(-1)
            seen["weights"][module.layer_idx], seen["values"][module.layer_idx] = weights, value[0]
            return torch.einsum("hqk,hkd->qhd", weights, value[0])[None], None

        home.eager_attention_forward = attention
        try:
            with torch.no_grad():
                return self.model(**self.extended(tokens), use_cache=False).logits[0, -1], seen
        finally:
            home.eager_attention_forward = usual

    def text_only(self, tokens: list[int]) -> torch.Tensor:
        """(V,) the next token's logits in a prompt that never had an image."""
        extended = self.extended(tokens)
        text = extended["input_ids"] != self.model.config.image_token_id
        short = {
            key: extended[key][text][None]
            for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
            if key in extended
        }
        alone = self.model.config.model_type in ("instructblip", "blip-2")
        model = self.model.language_model if alone else self.model
        with torch.no_grad():
            return model(**short, use_cache=False).logits[0, -1]


def constrained(full: torch.Tensor, combined: torch.Tensor, beta: float) -> torch.Tensor:
    """(V,) combined logits, -inf where the first branch's probability is below beta times its largest."""
    probabilities = full.softmax(-1).tolist()
    pairs = zip(combined.tolist(), probabilities, strict=True)
    return torch.tensor([value if p >= beta * max(probabilities) else -torch.inf for value, p in pairs])


def check(name: str, method: Any, asked: list, logits: Callable[["Altered", list[int]], torch.Tensor]) -> list[int]:
    """Asserts that each row of a batch gets, step by step, the logits it should; gives how many steps each had."""
    model, _ = families.build(name)
    inputs = families.inputs(name, *asked)
    found = model.generate(
        **inputs, custom_generate=method, max_new_tokens=3, return_dict_in_generate=True, output_logits=True
    )
    counts = []
    for row, one in enumerate(asked):
        expected = Altered(name, *one)
        tokens = found.sequences[row, -len(found.logits) :].tolist()
        count = tokens.index(2) + 1 if 2 in tokens else len(tokens)
        for step in range(count):
            wanted = logits(expected, tokens[:step])
            torch.testing.assert_close(found.logits[step][row], wanted, atol=2e-3, rtol=1e-3)
        counts.append(count)
    return counts
