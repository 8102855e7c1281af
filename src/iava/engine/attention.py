"""One attention call of a decoder layer, as a hook sees it, and what its last query pays attention to.

The model's own attention function stays in charge: what a hook costs beyond it is one row instead of a matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from iava.errors import IavaError


@dataclass(frozen=True)
class AttentionCall:
    """One layer's attention: R rows, Q queries, K keys.

    Args:
        layer: its number, from 0.
        query: (R, heads, Q, d).
        key: (R, key heads, K, d); each key head serves heads / key heads queries.
        value: (R, key heads, K, d).
        mask: None, (R, K) or (R, 1, Q, K), as the attention function takes it.
        scaling: factor on the dot products.
        options: the other keyword arguments of the attention function.
        answer: what `run` asks.

    Examples:
        >>> def near(call):  # every query prefers what is close to it
        ...     keys = torch.arange(call.key.shape[2])
        ...     queries = keys[-call.query.shape[2] :, None]
        ...     return call.add_bias(-0.1 * (queries - keys).abs()).run()
        >>> with attention_hook(model, near):
        ...     model.generate(**inputs)
    """

    layer: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: Any
    scaling: float
    options: dict[str, Any]
    answer: Callable[["AttentionCall"], torch.Tensor]

    @property
    def has_full_mask(self) -> bool:
        """Whether the mask is four-dimensional."""
        return isinstance(self.mask, torch.Tensor) and self.mask.dim() == 4

    def run(self) -> torch.Tensor:
        """(R, Q, heads, d): what the model's own attention function gives."""
        return self.answer(self)

    def hide(self, tokens: torch.Tensor) -> "AttentionCall":
        """The call in which no query sees some tokens. A query that would see nothing sees what it saw.

        Args:
            tokens: (R, T) bool, True at the columns to hide, see `at_keys`.

        Raises:
            IavaError: if the attention function takes no four-dimensional mask.
        """
        seen = self._seen()
        left = seen & ~self.at_keys(tokens)[:, None, None]
        left = torch.where(left.any(dim=-1, keepdim=True), left, seen)
        if self.mask is None or self.mask.dtype == torch.bool:
            return replace(self, mask=left)
        return replace(self, mask=self.mask.masked_fill(~left, torch.finfo(self.mask.dtype).min))

    def add_bias(self, bias: torch.Tensor) -> "AttentionCall":
        """The call in which something is added to the attention logits of all queries, after scaling and soft capping.

        Args:
            bias: float, of a shape that broadcasts to (R, heads, Q, K). Keys that a query may not see stay unseen.

        Raises:
            IavaError: if the attention function takes no four-dimensional mask.
        """
        added = bias.to(self.query)
        if self.mask is not None and self.mask.dtype != torch.bool:
            lowest = torch.finfo(added.dtype).min
            return replace(self, mask=(added + self._four_dimensional()).clamp(min=lowest))
        return replace(self, mask=torch.where(self._seen(), added, torch.finfo(added.dtype).min))

    @cached_property
    def logits(self) -> torch.Tensor:
        """(R, heads, K) float32: the last query's attention logits at all keys, seen or not."""
        return self.scores_of(self.query[:, :, -1:])[:, :, 0]

    def scores_of(self, query: torch.Tensor) -> torch.Tensor:
        """(R, heads, Q, d) -> (R, heads, Q, K) float32: attention logits at all keys, seen or not."""
        return scores_of(query, self.key, self.scaling, self.options.get("softcap"))

    @cached_property
    def scores(self) -> torch.Tensor:
        """(R, heads, K) float32: the last query's attention logits, -inf at keys that it may not see."""
        return masked_scores(self.logits, self.mask, self.options.get("sliding_window"))

    def weights(self, scores: torch.Tensor) -> torch.Tensor:
        """The softmax of scores: (R, heads, K), or (R, heads, Q, K)."""
        return weights_of(scores, self.options.get("s_aux"))

    def mixed(self, weights: torch.Tensor) -> torch.Tensor:
        """(R, heads, K) weights of the last query -> (R, heads, d), the sum of the values with these weights."""
        rows, heads, width = weights.shape
        grouped = weights.view(rows, self.value.shape[1], -1, width).to(self.value.dtype)
        return (grouped @ self.value[:, :, :width]).reshape(rows, heads, -1)

    def at_keys(self, columns: torch.Tensor) -> torch.Tensor:
        """(R, T) -> (R, K): what is known of each token's column, at the layer's keys.

        A static cache has an empty end. A sliding one has lost its first columns.
        """
        width, keys = columns.shape[1], self.key.shape[2]
        fitted = torch.nn.functional.pad(columns, (0, keys - width)) if keys > width else columns[:, width - keys :]
        return fitted.to(self.key.device)

    def at_columns(self, row: torch.Tensor, width: int) -> torch.Tensor:
        """(R, K) -> (R, width): the way back from `at_keys`, 0 at tokens of which the layer has no key."""
        missing = width - row.shape[1]
        return torch.nn.functional.pad(row, (missing, 0)) if missing > 0 else row[:, :width]

    def _seen(self) -> torch.Tensor:
        """(R or 1, 1, Q, K) bool: which keys each query sees."""
        if self.mask is None:
            queries, keys = self.query.shape[2], self.key.shape[2]
            causal = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=self.key.device)
            return causal.tril(keys - queries)
        mask = self._four_dimensional()
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2

    def _four_dimensional(self) -> Any:
        if not self.has_full_mask:
            raise IavaError(
                "the model's attention function takes no mask for single layers: load the model with "
                "attn_implementation='sdpa' or 'eager'"
            )
        return self.mask


def attention_row(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """Softmax of the last query over all keys.

    Args:
        query: (B, heads, Q, d).
        key: (B, key heads, K, d); each key head serves heads / key heads queries.
        mask: None (every key may be seen), (B, K) 1 or 0, or (B, 1, Q, K), bool (True: may be seen) or added.
        scaling: factor on the dot products.
        softcap: scores are squeezed to softcap * tanh(score / softcap).
        sinks: (heads,) scores of a key that takes attention and gives nothing.
        window: the last query sees this many keys at most; a four-dimensional mask says so itself.

    Returns:
        (B, heads, K) float32.
    """
    return weights_of(last_scores(query, key, mask, scaling, softcap=softcap, window=window), sinks)


def last_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    *,
    softcap: float | None = None,
    window: int | None = None,
) -> torch.Tensor:
    """The last query's attention logits: (B, heads, K) float32, -inf at keys that it may not see.

    Args: see `attention_row`.
    """
    scores = scores_of(query[:, :, -1:], key, scaling, softcap)[:, :, 0]
    return masked_scores(scores, mask, window)


def scores_of(query: torch.Tensor, key: torch.Tensor, scaling: float, softcap: float | None) -> torch.Tensor:
    """Attention logits: (B, heads, Q, d), (B, key heads, K, d) -> (B, heads, Q, K) float32."""
    batch, heads, count, width = query.shape
    # The queries of one key head stand together.
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(-1, -2)).float().view(batch, heads, count, -1) * scaling
    return scores if softcap is None else (scores / softcap).tanh() * softcap


def masked_scores(scores: torch.Tensor, mask: torch.Tensor | None, window: int | None) -> torch.Tensor:
    """Attention logits of the last query, -inf at keys that it may not see.

    Args:
        scores: (B, heads, K) float32.
        mask, window: see `attention_row`.
    """
    if mask is not None:
        row = mask[:, None] if mask.dim() == 2 else mask[:, :, -1]
        row = row[..., : scores.shape[-1]]
        if row.is_floating_point():
            scores = scores + row
            row = row > torch.finfo(row.dtype).min / 2
        scores = scores.masked_fill(~row.bool(), float("-inf"))
    if window is not None and (mask is None or mask.dim() == 2) and scores.shape[-1] > window:
        hidden = torch.arange(scores.shape[-1], device=scores.device) < scores.shape[-1] - window
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores


def weights_of(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the keys, the last dimension: (B, heads, ..., K); `sinks` as in `attention_row`."""
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float().view(1, -1, *[1] * (scores.dim() - 2)).expand(*scores.shape[:-1], 1)
    return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]
