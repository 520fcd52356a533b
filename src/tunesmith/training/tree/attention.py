"""Attention along a tree: a token attends to its ancestors and itself only, at the cost of plain attention.

Registered with transformers under `NAME`; a model set to use it behaves as with `sdpa` unless
`tree=TreeAttention(...)` is passed to a forward pass. On a CPU each run of the tree is a few calls of SDPA
over the tokens before it and itself. On a GPU short trees use one SDPA call with a boolean mask, long ones
FlexAttention with a block mask (see `flex`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.training.device import to_device
from tunesmith.training.tree.flex import attend_in_blocks, block_mask
from tunesmith.training.tree.tree import Tree

NAME = "tunesmith_tree"
# On a GPU: number of tokens from which a dense mask costs more than FlexAttention's blocks.
FLEX_FROM = 2048
# On a CPU: queries per call. Fewer skip more of what is masked, more are computed faster.
PIECE = 128
# On a CPU: number of tokens from which a run with nothing before it is one call. Its kernel skips what is
# masked, in larger blocks.
WHOLE_FROM = 1024


class UnsupportedAttentionError(Exception):
    """The model requires something that this attention does not support."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries that are computed together: the last `size` tokens of `seen`.

    `seen` are ranges (run, start, stop) within runs; `mask` is the attention mask, None for plain causal.
    """

    size: int
    seen: tuple[tuple[int, int, int], ...]
    mask: torch.Tensor | None


class TreeAttention:
    """One tree prepared for attention on one device; every layer uses it.

    What is copied to the device is copied here, so that a forward pass copies nothing.
    """

    def __init__(self, tree: Tree, device: torch.device, path: str = "auto") -> None:
        self._tree, self._device = tree, device
        if path == "auto":
            path = "runs" if device.type == "cpu" else "flex" if len(tree) >= FLEX_FROM else "dense"
        self.path = path
        self.sizes = [run.stop - run.start for run in tree.runs]
        self._ends = to_device(torch.from_numpy(tree.ends), device)
        self.blocks = block_mask(tree.ends, device) if path == "flex" else None

    @cached_property
    def pieces(self) -> list[Piece]:
        """The runs, split into pieces, in order."""
        starts = [run.start for run in self._tree.runs]
        pieces = []
        for number, run in enumerate(self._tree.runs):
            before = []
            for start, stop in run.before:
                index = int(np.searchsorted(starts, start, side="right")) - 1
                before.append((index, start - starts[index], stop - starts[index]))
            size = run.stop - run.start
            step = size if not run.depth and size >= WHOLE_FROM else PIECE
            for start in range(0, size, step):
                stop = min(start + step, size)
                seen = run.depth + start
                mask = _causal(stop - start, seen, self._device) if seen else None
                pieces.append(Piece(stop - start, (*before, (number, 0, stop)), mask))
        return pieces

    @cached_property
    def mask(self) -> torch.Tensor:
        """The boolean attention mask, shape (1, 1, n, n); kept until `forget_mask`."""
        at = torch.arange(len(self._tree), device=self._device)
        return ((at[:, None] >= at) & (at[:, None] < self._ends))[None, None]

    def forget_mask(self) -> None:
        """Give up the attention mask, which may be large."""
        vars(self).pop("mask", None)

    def shape(self) -> torch.Tensor:
        """Return the mask to pass to the model: of four dimensions, so that the model does not create one."""
        return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=self._device)


def _causal(size: int, before: int, device: torch.device) -> torch.Tensor:
    """Return the causal mask of `size` tokens after `before` others, shape (size, before + size)."""
    return torch.ones((size, before + size), dtype=torch.bool, device=device).tril(diagonal=before)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    tree: TreeAttention | None = None,
    **options: Any,
) -> tuple[torch.Tensor, Any]:
    """Compute attention; transformers calls this in each layer.

    query has shape (1, heads, n, size), key and value (1, key heads, n, size), the result
    (1, n, heads, size).
    """
    if tree is None:
        out, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return out, weights
    _refuse(options)
    if tree.path == "runs":
        return _attend_runs(module, query, key, value, tree, options), None
    if tree.blocks is not None and not options.get("dropout"):  # which FlexAttention has not
        return attend_in_blocks(query, key, value, tree.blocks, options.get("scaling")), None
    out, weights = sdpa_attention_forward(module, query, key, value, tree.mask, **options)
    return out, weights


def _refuse(options: dict[str, Any]) -> None:
    for name in ("position_bias", "s_aux", "softcap"):
        if options.get(name) is not None:
            raise UnsupportedAttentionError(f"its attention uses {name}")


def _attend_runs(
    module: Any, query: Any, key: Any, value: Any, tree: TreeAttention, options: dict[str, Any]
) -> torch.Tensor:
    keys, values = key.split(tree.sizes, dim=2), value.split(tree.sizes, dim=2)
    queries = query.split([piece.size for piece in tree.pieces], dim=2)
    made = [
        functional.scaled_dot_product_attention(
            queries[number],
            _join(keys, piece),
            _join(values, piece),
            attn_mask=piece.mask,
            dropout_p=options.get("dropout") or 0.0,
            is_causal=piece.mask is None,
            scale=options.get("scaling"),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        for number, piece in enumerate(tree.pieces)
    ]
    return torch.cat(made, dim=2).transpose(1, 2).contiguous()


def _join(runs: Sequence[torch.Tensor], piece: Piece) -> torch.Tensor:
    """Return the keys or values that a piece attends to, in order."""
    parts = [runs[run][:, :, start:stop] for run, start, stop in piece.seen]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def register() -> None:
    """Register the attention with transformers."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
