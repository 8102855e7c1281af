"""Steering: the decoder's attention changed while it runs.

The decoder's attention is switched to a function that is shown each layer's call and may answer it: by the kernel the
model already uses, by that kernel with keys hidden, or by weights of its own for the last token. The model never runs
in eager mode for it, and what it costs beyond the kernel is one row instead of a matrix.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iava.engine.probe import last_scores, weights_of
from iava.errors import IavaError


@dataclass(frozen=True)
class Call:
    """One layer's attention, R rows of Q queries and K keys.

    Args:
        layer: its number, from 0.
        query: (R, heads, Q, d).
        key: (R, key heads, K, d).
        value: (R, key heads, K, d).
        mask: None, (R, K), or (R, 1, Q, K), as the kernel takes it.
        scaling: factor on the dot products.
        options: whatever else the kernel takes.
        kernel: the model's own; it wants a mask.
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: Any
    scaling: float
    options: dict[str, Any]
    kernel: Callable[[Any], torch.Tensor]

    def run(self) -> torch.Tensor:
        """(R, Q, heads, d) what the model's own kernel gives."""
        return self.kernel(self.mask)

    def run_without(self, hidden: torch.Tensor) -> torch.Tensor:
        """The same where no query may look at some keys; a query that would see nothing sees what it saw.

        Args:
            hidden: (R, T) bool, see `fit`.

        Raises:
            IavaError: if the kernel's mask cannot say so.
        """
        return self.kernel(_hiding(self.mask, self.fit(hidden)[:, None, None], self.query.shape[2]))

    @cached_property
    def scores(self) -> torch.Tensor:
        """(R, heads, K) float32: what the last query's softmax is taken of, -inf at keys that it may not see."""
        return last_scores(
            self.query,
            self.key,
            self.mask,
            self.scaling,
            softcap=self.options.get("softcap"),
            window=self.options.get("sliding_window"),
        )

    def weights(self, scores: torch.Tensor) -> torch.Tensor:
        """(R, heads, K) the softmax of scores."""
        return weights_of(scores, self.options.get("s_aux"))

    def mixed(self, weights: torch.Tensor) -> torch.Tensor:
        """(R, heads, K) weights of the last query -> (R, heads, d) what it gets of the values."""
        rows, heads, width = weights.shape
        grouped = weights.view(rows, self.value.shape[1], -1, width).to(self.value.dtype)
        return (grouped @ self.value[:, :, :width]).reshape(rows, heads, -1)

    def fit(self, columns: torch.Tensor) -> torch.Tensor:
        """(R, T) -> (R, K): for each of the layer's keys what is known of the token in that column.

        A static cache has an empty end; a sliding one has lost its first columns.
        """
        width, keys = columns.shape[1], self.key.shape[2]
        fitted = torch.nn.functional.pad(columns, (0, keys - width)) if keys > width else columns[:, width - keys :]
        return fitted.to(self.key.device)

    def unfit(self, row: torch.Tensor, width: int) -> torch.Tensor:
        """(R, K) -> (R, width): the way back from `fit`, 0 at tokens of which the layer has no key."""
        missing = width - row.shape[1]
        return torch.nn.functional.pad(row, (missing, 0)) if missing > 0 else row[:, :width]


Attend = Callable[[Call], torch.Tensor]
"""What answers a call: (R, Q, heads, d)."""

# Bound to one thread and one forward pass; the registered functions themselves hold no state.
_attend: ContextVar[Attend] = ContextVar("attend")


@contextmanager
def steered(model: PreTrainedModel, attend: Attend) -> Iterator[None]:
    """Lets `attend` answer every call of the decoder's attention inside."""
    config = model.get_decoder().config
    implementation = config._attn_implementation
    token = _attend.set(attend)
    try:
        config._attn_implementation = _registered(implementation)
        yield
    finally:
        config._attn_implementation = implementation
        _attend.reset(token)


def _registered(implementation: str) -> str:
    # The kernel's name stays in it, because transformers looks for "flash" inside the name.
    name = f"steered_{implementation}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
        AttentionInterface.register(name, _showing(implementation))
    return name


def _showing(implementation: str) -> Callable[..., tuple[torch.Tensor, None]]:
    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,
        *args: Any,
        scaling: float,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        # Eager attention is the one kernel that each modelling file defines for itself.
        eager = sys.modules[type(module).__module__].eager_attention_forward
        own = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
        if implementation.endswith("sdpa") and attention_mask is None and 1 < query.shape[2] < key.shape[2]:
            # A static cache is longer than what is in it; without a mask sdpa leaves its empty end out.
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]

        def kernel(mask: Any) -> torch.Tensor:
            return own(module, query, key, value, mask, *args, scaling=scaling, **kwargs)[0]

        layer: Any = module.layer_idx
        return _attend.get()(Call(layer, query, key, value, attention_mask, scaling, kwargs, kernel)), None

    return attention


def _hiding(mask: Any, hidden: torch.Tensor, queries: int) -> torch.Tensor:
    """The kernel's mask with some keys hidden: `hidden` is (R, 1, 1, K) bool."""
    if mask is None:
        keys = hidden.shape[-1]
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=hidden.device).tril(keys - queries)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        raise IavaError(
            "single layers cannot hide tokens from each other in the model's attention implementation: load the model "
            "with attn_implementation='sdpa' or 'eager'"
        )
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    left = seen & ~hidden
    left = torch.where(left.any(dim=-1, keepdim=True), left, seen)
    return left if mask.dtype == torch.bool else mask.masked_fill(~left, torch.finfo(mask.dtype).min)
