"""FlexAttention along a tree: only blocks of tokens that see each other are computed.

A kernel is compiled for each length, which takes seconds, and after some lengths torch stops compiling and
computes all scores instead. So queries, keys and values are padded to one of a few lengths, here and not in
the batch: the padding costs next to nothing, as it sees only itself and no other layer computes it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tunesmith.training.device import to_device

BLOCK = 128
# Lengths between a power of two and the next.
STEPS = 4
# Lengths of trees of up to 2^25 tokens, with and without gradients.
COMPILED = 128


def padded_length(size: int) -> int:
    """Return the length that `size` tokens are padded to: a few per power of two, in whole blocks."""
    unit = max(BLOCK, (1 << max(0, size - 1).bit_length()) // (2 * STEPS))
    return -(-size // unit) * unit


def block_mask(ends: np.ndarray[Any, np.dtype[np.int64]], device: torch.device) -> Any:
    """Return FlexAttention's BlockMask for a preorder whose token k has its descendants up to `ends[k]`.

    A later block of queries i attends to a block of keys j if any token of j has a descendant in i, and in
    full if every token of i is a descendant of every token of j. The mask has the padded length; each token
    of the padding sees itself.
    """
    from torch.nn.attention.flex_attention import BlockMask

    size = padded_length(len(ends))
    count = size // BLOCK
    padded = np.concatenate([ends, np.arange(len(ends), size) + 1])
    by_block = padded.reshape(count, BLOCK)
    first = np.arange(count) * BLOCK
    last = first + BLOCK
    earlier = np.arange(count)[:, None] > np.arange(count)
    some = (earlier & (by_block.max(1) > first[:, None])) | np.eye(count, dtype=bool)
    whole = earlier & (by_block.min(1) >= last[:, None])
    limits = to_device(torch.from_numpy(padded), device)

    def sees(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < limits[key])

    partial_count, partial = _indices(some & ~whole, device)
    whole_count, full = _indices(whole, device)
    return BlockMask.from_kv_blocks(
        partial_count, partial, whole_count, full, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(size, size)
    )


def _indices(wanted: np.ndarray[Any, np.dtype[np.bool_]], device: torch.device) -> tuple[Any, ...]:
    """Return how many blocks of each row are wanted, and which; shapes (1, 1, rows), (1, 1, rows, rows)."""
    order = np.argsort(~wanted, axis=1, kind="stable").astype(np.int32)
    counts = wanted.sum(1).astype(np.int32)
    return tuple(to_device(torch.from_numpy(each), device)[None, None] for each in (counts, order))


def attend_in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocks: Any, scale: float | None
) -> torch.Tensor:
    """Return the attention's output, shape (1, n, heads, size); the others are as in `attend`."""
    size, heads, key_heads = query.shape[2], query.shape[1], key.shape[1]
    if heads & (heads - 1):  # the kernel wants a power of two
        key, value = (each.repeat_interleave(heads // key_heads, dim=1) for each in (key, value))
    more = blocks.seq_lengths[0] - size
    padded = [functional.pad(each, (0, 0, 0, more)) if more else each for each in (query, key, value)]
    out: torch.Tensor = compiled()(
        *padded, block_mask=blocks, scale=scale, enable_gqa=padded[0].shape[1] != padded[1].shape[1]
    )
    return out[:, :, :size].transpose(1, 2).contiguous()


@functools.cache
def compiled() -> Any:
    """Return FlexAttention, compiled once for each padded length."""
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    config.recompile_limit = max(config.recompile_limit, COMPILED)
    return torch.compile(flex_attention, dynamic=False)


def kernels_compiled() -> int:
    """Return how many kernels were compiled so far in this process, one for each padded length and mode."""
    if not compiled.cache_info().currsize:
        return 0
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
