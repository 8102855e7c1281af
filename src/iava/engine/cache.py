"""Keys and values put in a cache without copying them."""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


def cache_behind(layers: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache to run tokens with that stand behind these; its layers' `keys` and `values` are those of the new ones.

    Args:
        layers: each layer's keys and values, (B, heads, P, d) both; views will do, and are never written to.
    """
    cache = DynamicCache()
    cache.layers.extend(_Behind(keys, values) for keys, values in layers)
    return cache


class _Behind(DynamicLayer):
    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._before = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new = super().update(key_states, value_states, *args, **kwargs)
        # Kernels want them in one piece, which is needed as long as this layer runs.
        keys, values = (torch.cat([before, part], dim=2) for before, part in zip(self._before, new, strict=True))
        return keys, values

    def get_seq_length(self) -> int:
        return self._before[0].shape[2] + super().get_seq_length()

    def reset(self) -> None:
        super().reset()
        # A view would keep what it is a view of.
        del self._before


def put(cache: Cache, number: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Fills an empty layer of a cache of any kind."""
    layer = cache.layers[number] if number < len(cache.layers) else None
    if type(layer) is not DynamicLayer:
        cache.update(keys, values, number)
        return
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
