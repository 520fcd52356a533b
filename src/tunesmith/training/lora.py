"""A fused LoRA layer: y = x Wᵀ + s · drop(x) Aᵀ Bᵀ, with the products added in place.

peft computes the two outputs separately, scales one and adds them, in the forward and the backward pass; on a
CPU that takes a tenth of the time of the products themselves. Only plain layers are replaced: a frozen linear
base, one adapter, one dtype for everything.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch.nn import functional

from tunesmith.training.dropout import KeyedDropout


class _Product(torch.autograd.Function):
    """x and kept (n, in), weight (out, in), bias (out,) or None, a (r, in), b (out, r).

    seen is x after dropout: of what is not kept, or without that of torch's own random choice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        rate: float,
        kept: torch.Tensor | None,
    ) -> torch.Tensor:
        seen = x
        if kept is not None:
            seen = x.mul(kept).mul_(1 / (1 - rate))
        elif rate:
            seen, kept = torch.native_dropout(x, rate, True)
        low = seen @ a.T
        out = functional.linear(x, weight, bias)
        ctx.save_for_backward(seen, kept, low, weight, a, b)
        ctx.scale, ctx.rate = scale, rate
        return out.addmm_(low, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[Any, ...]:
        seen, kept, low, weight, a, b = ctx.saved_tensors
        back = (slope @ b).mul_(ctx.scale)
        for_a, for_b = back.T @ seen, (slope.T @ low).mul_(ctx.scale)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = slope @ weight
            if kept is None:
                for_x.addmm_(back, a)
            else:
                for_x.add_((back @ a).mul_(kept), alpha=1 / (1 - ctx.rate))
        return for_x, None, None, for_a, for_b, None, None, None


class FusedLora:
    """Replaces the forward pass of one of peft's layers."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._plain, self._name = layer, layer.forward, layer.active_adapters[0]

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output; peft's own forward pass is called in cases that are not supported."""
        layer, name = self._layer, self._name
        base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
        alike = x.dtype == base.weight.dtype == a.dtype and not torch.is_autocast_enabled(x.device.type)
        as_made = not (layer.disable_adapters or layer.merged) and layer.active_adapters == [name]
        if args or kwargs or not as_made or not alike:
            plain: torch.Tensor = self._plain(x, *args, **kwargs)
            return plain
        dropout = layer.lora_dropout[name]
        rate = dropout.p if isinstance(dropout, torch.nn.Dropout) and layer.training else 0.0
        kept = dropout.kept(x) if rate and isinstance(dropout, KeyedDropout) else None
        product: Any = _Product.apply
        flat = x.reshape(-1, x.shape[-1])
        made: torch.Tensor = product(flat, base.weight, base.bias, a, b, layer.scaling[name], rate, kept)
        return made.view(*x.shape[:-1], -1)


def fuse_lora(model: Any) -> int:
    """Fuse all layers that can be, and return how many. Not for weights that are gathered per layer call."""
    taken = 0
    for layer in model.modules():
        if type(layer) is Linear and _is_plain(layer):
            vars(layer)["forward"] = FusedLora(layer)
            taken += 1
    return taken


def _is_plain(layer: Any) -> bool:
    names = layer.active_adapters
    return (
        type(layer.base_layer) is torch.nn.Linear
        and not layer.base_layer.weight.requires_grad
        and len(names) == 1
        and names[0] in layer.lora_A
        and names[0] not in layer.lora_variant
        and not layer.fan_in_fan_out
        and layer.lora_B[names[0]].bias is None
    )
