"""The KV cache of a batch: repeating a prompt's for its replies, joining batches, dropping rows.

This requires caches that keep each token of a layer separately; `is_plain` checks for these.
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
    """Return whether each layer keeps the full keys and values of each token, and nothing else."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def is_attention(cache: Any) -> bool:
    """Return whether all layers are attention, possibly over a window, so that padding can be masked."""
    return isinstance(cache, Cache) and all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in cache.layers
    )


def token_bytes(cache: DynamicCache) -> int:
    """Return the bytes of one token of one row."""
    return sum(
        tensor.nbytes // (tensor.shape[0] * tensor.shape[-2]) for pair in _pairs(cache) for tensor in pair
    )


def repeated(cache: DynamicCache, times: int) -> DynamicCache:
    """Return one row's cache for `times` rows, which share its memory until they are joined with others."""
    return _cache((k.expand(times, -1, -1, -1), v.expand(times, -1, -1, -1)) for k, v in _pairs(cache))


def joined(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Return all rows of `caches`, in order; shorter ones are padded with zeros on the left."""
    width = max(cache.get_seq_length() for cache in caches)
    layers = zip(*(_pairs(cache) for cache in caches), strict=True)
    return _cache((_stacked([k for k, _ in of], width), _stacked([v for _, v in of], width)) for of in layers)


def keep(cache: DynamicCache, rows: torch.Tensor, start: int) -> None:
    """Keep only the rows at positions `rows`, and only the tokens from `start`."""
    for layer in cache.layers:
        layer.keys = layer.keys[rows, :, start:]
        layer.values = layer.values[rows, :, start:]


def _pairs(cache: DynamicCache) -> Iterator[KeyValue]:
    for layer in cache.layers:
        yield layer.keys, layer.values


def _stacked(tensors: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """Return tensors [rows, heads, tokens, size] concatenated by rows, padded on the left to `width`."""
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
