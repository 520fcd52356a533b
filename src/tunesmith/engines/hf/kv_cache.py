"""Keys and values of a batch's tokens: repeating a prompt's for its samples, joining batches, dropping rows.

Only caches that keep every token of a layer by itself can be taken apart so; `is_plain` says which these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
)

KeyValue = tuple[torch.Tensor, torch.Tensor]


def is_plain(cache: Any) -> bool:
    """Return whether each layer keeps each token's keys and values, whole, and nothing else."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def is_attention(cache: Any) -> bool:
    """Return whether there is nothing but attention, be it over a window, so that padding can be masked."""
    return isinstance(cache, Cache) and all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in cache.layers
    )


def token_bytes(cache: DynamicCache) -> int:
    """Bytes of one token of one row."""
    return sum(
        tensor.nbytes // (tensor.shape[0] * tensor.shape[-2]) for pair in _pairs(cache) for tensor in pair
    )


def repeated(cache: DynamicCache, times: int) -> DynamicCache:
    """The cache of one row for `times` rows, which share its memory until they are joined with others."""
    return _cache((k.expand(times, -1, -1, -1), v.expand(times, -1, -1, -1)) for k, v in _pairs(cache))


def joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Return all rows of `caches`, in order; shorter ones are filled up with zeros on the left."""
    width = max(cache.get_seq_length() for cache in caches)
    layers = zip(*(_pairs(cache) for cache in caches), strict=True)
    return _cache((_stacked([k for k, _ in of], width), _stacked([v for _, v in of], width)) for of in layers)


def keep(cache: DynamicCache, rows: torch.Tensor, start: int) -> None:
    """Leave out all rows but `rows` (positions) and all tokens before `start`."""
    for layer in cache.layers:
        layer.keys = layer.keys[rows, :, start:]
        layer.values = layer.values[rows, :, start:]


def _pairs(cache: DynamicCache) -> Iterator[KeyValue]:
    for layer in cache.layers:
        yield layer.keys, layer.values


def _stacked(tensors: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """[rows, heads, tokens, size] of several, one after the other."""
    pad = torch.nn.functional.pad
    return torch.cat([pad(each, (0, 0, width - each.shape[-2], 0)) for each in tensors])


def _cache(pairs: Iterator[KeyValue]) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in pairs:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
