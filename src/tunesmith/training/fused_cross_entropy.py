"""The language-model head fused with the loss, a few rows at a time: never all logits in memory.

The head returns a single number, Σ w (log Σ exp z − z_target); the gradient of the hidden states (and of the
head's own weights, if they are trained) is computed in the forward pass, while a chunk of logits exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tunesmith.training.device import to_device
from tunesmith.training.head_chunks import chunk_rows


@dataclass(frozen=True, slots=True)
class Targets:
    """Labels: `weights[i]` is that of token `ids[i]` after the hidden state `rows[i]`. Shapes (m,).

    Rows are sorted; a row has several labels if samples continue differently. `order` has the rows on the
    CPU, from which it is known what belongs to a chunk without asking the device.
    """

    rows: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor
    order: npt.NDArray[np.int64]

    def on(self, device: torch.device) -> Targets:
        """Return the targets on a device."""
        rows, ids, weights = (to_device(each, device) for each in (self.rows, self.ids, self.weights))
        return Targets(rows, ids, weights, self.order)

    def part(self, start: int, stop: int) -> Targets:
        """Return the targets of the rows from `start` to `stop`, which become rows from 0."""
        low, high = np.searchsorted(self.order, (start, stop)).tolist()
        at = slice(low, high)
        return Targets(self.rows[at] - start, self.ids[at], self.weights[at], self.order[at] - start)


def loss_of_logits(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return Σ w ℓ from the logits (rows, vocabulary) of every row; a differentiable zero without labels."""
    if not len(targets.order):
        return logits.float().sum() * 0.0
    return (losses_of_logits(logits, targets) * targets.weights).sum()


def losses_of_logits(logits: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return ℓ of each label, float32, shape (m,), from the logits (rows, vocabulary) of every row."""
    logits = logits.float()
    # torch's own cross entropy is an order of magnitude less exact over a large vocabulary on a CPU.
    return torch.logsumexp(logits, dim=-1)[targets.rows] - logits[targets.rows, targets.ids]


class _Loss(torch.autograd.Function):
    """hidden (rows, width), weight (vocabulary, width), bias (vocabulary,) or None."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: Targets,
        trains: bool,
    ) -> torch.Tensor:
        dtype = _computed_in(hidden)
        head = weight.to(dtype)
        kinds = ((hidden, hidden.dtype), (weight, torch.float32), (bias, torch.float32))
        grads = [_room(part, of) if trains else None for part, of in kinds]
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        step = chunk_rows(len(hidden), weight.shape[0], _memory(hidden.device))
        for start in range(0, len(hidden), step):
            part = targets.part(start, start + step)
            if len(part.order):
                states = hidden[start : start + step].to(dtype)
                total += _chunk(states, head, bias, part, grads, slice(start, start + step))
        ctx.grads = [
            None if grad is None or part is None else grad.to(part.dtype)
            for grad, part in zip(grads, (hidden, weight, bias), strict=True)
        ]
        return total.float()

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # In float32: a scale rounded to 16 bits would give all weights the same error.
        grads = [None if grad is None else (grad.float() * scale).to(grad.dtype) for grad in ctx.grads]
        ctx.grads = []
        return (*grads, None, None)


@torch.no_grad()
def _losses(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: Targets
) -> torch.Tensor:
    """Return ℓ of each label, float32, shape (m,); the same arguments as those of `_Loss`."""
    dtype = _computed_in(hidden)
    head, found = weight.to(dtype), []
    step = chunk_rows(len(hidden), weight.shape[0], _memory(hidden.device))
    for start in range(0, len(hidden), step):
        part = targets.part(start, start + step)
        if len(part.order):
            chosen, sums = _scores(hidden[start : start + step].to(dtype), head, bias, part)[1:]
            found.append(sums.log()[part.rows] - chosen)
    return torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)


def _computed_in(hidden: torch.Tensor) -> torch.dtype:
    """Return the dtype of the head's product: autocast's, else that of the hidden states."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _memory(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory; None for a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _room(part: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return zeros for the gradient of a tensor; None if it requires none."""
    wanted = part is not None and part.requires_grad
    return torch.zeros_like(part, dtype=dtype) if wanted and part is not None else None


def _scores(
    states: torch.Tensor, head: torch.Tensor, bias: torch.Tensor | None, targets: Targets
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return exp z of some rows, z of each label, and Σ exp z of each row; z less the row's largest."""
    logits = functional.linear(states, head, None if bias is None else bias.to(head.dtype)).float()
    logits.sub_(logits.amax(-1, keepdim=True))
    chosen = logits[targets.rows, targets.ids]
    return logits.exp_(), chosen, logits.sum(-1)


def _chunk(
    states: torch.Tensor,
    head: torch.Tensor,
    bias: torch.Tensor | None,
    targets: Targets,
    grads: list[torch.Tensor | None],
    place: slice,
) -> torch.Tensor:
    """Return Σ w ℓ of some rows; adds to the gradients that are wanted."""
    exps, chosen, sums = _scores(states, head, bias, targets)
    weights = targets.weights.float()
    total = ((sums.log()[targets.rows] - chosen).double() * weights).sum()
    if any(grad is not None for grad in grads):
        row_weights = torch.zeros_like(sums).index_add_(0, targets.rows, weights)
        slope = exps.mul_((row_weights / sums)[:, None])
        slope.index_put_((targets.rows, targets.ids), -weights, accumulate=True)
        low = slope.to(head.dtype)
        for_hidden, for_weight, for_bias = grads
        if for_hidden is not None:
            for_hidden[place] = (low @ head).to(for_hidden.dtype)
        if for_weight is not None:
            for_weight += low.T @ states
        if for_bias is not None:
            for_bias += slope.sum(0)
    return total


class FusedHead:
    """The head of a model; inside `loss` a forward pass returns the loss instead of logits."""

    def __init__(self, module: torch.nn.Linear) -> None:
        self._module, self._plain = module, module.forward
        self._targets: Targets | None = None
        self._apart = False
        vars(module)["forward"] = self._forward  # its hooks (ZeRO-3, DDP) stay in place

    @contextmanager
    def loss(self, targets: Targets, *, apart: bool = False) -> Iterator[None]:
        """Return a context in which the model's `logits` are Σ w ℓ, shape (1, 1, 1).

        If `apart`, they are ℓ of each label, without a gradient, shape (1, 1, m).
        """
        self._targets, self._apart = targets, apart
        try:
            yield
        finally:
            self._targets = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._targets is None:
            return self._plain(hidden)
        states = hidden.reshape(-1, hidden.shape[-1])
        weight, bias = self._module.weight, self._module.bias
        if self._apart:
            return _losses(states, weight, bias, self._targets).reshape(1, 1, -1)
        fused: Any = _Loss.apply
        loss: torch.Tensor = fused(states, weight, bias, self._targets, torch.is_grad_enabled())
        return loss.reshape(1, 1, 1)


def fuse_head(model: Any) -> FusedHead | None:
    """Replace a model's head and return it; None if its logits need more than a plain linear layer."""
    config = model.config.get_text_config()
    changed = (
        "final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier",
    )  # fmt: skip

    module = model.get_output_embeddings()
    if type(module) is not torch.nn.Linear or any(getattr(config, name, None) for name in changed):
        return None
    return FusedHead(module)
