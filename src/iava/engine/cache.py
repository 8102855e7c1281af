"""Keys and values put in a cache without copying them: what is run behind them copies them once anyway."""

from collections.abc import Iterable

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


def cache_of(layers: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A growing cache that begins with these.

    Args:
        layers: each layer's keys and values, (B, heads, P, d) both; views will do, and are never written to.
    """
    cache = DynamicCache()
    for keys, values in layers:
        cache.layers.append(DynamicLayer())
        put(cache, len(cache.layers) - 1, keys, values)
    return cache


def put(cache: Cache, number: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Fills an empty layer of a cache of any kind."""
    layer = cache.layers[number] if number < len(cache.layers) else None
    if type(layer) is not DynamicLayer:
        cache.update(keys, values, number)
        return
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
