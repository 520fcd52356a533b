"""Experts that are one tensor for a whole layer, as in transformers since version 5.

An adapter can target them as parameters (peft's `target_parameters`); 4-bit quantisation does not reach them.
peft would apply the old names of the experts' matrices to these tensors, which is rejected (see `targets`).
"""

from __future__ import annotations

import logging
import re
from typing import Any

from tunesmith.api.finetune import MethodSpec

log = logging.getLogger(__name__)
# Last parts of names that peft reads as the experts of such models, even if a dense layer has them.
OLD_NAMES = frozenset(("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"))


def expert_parameters(model: Any) -> list[str]:
    """Return the names of the expert tensors, one or more per layer."""
    return [
        name
        for name, weight in model.named_parameters()
        if len(getattr(weight, "ds_shape", weight.shape)) == 3 and weight.is_floating_point()
    ]


def fused_experts(model: Any) -> list[str]:
    """Return the names of the expert tensors, with `*` for the layer's number."""
    return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in expert_parameters(model)))


def short_name(name: str) -> str:
    """Return the part of an expert's name after its layer's number."""
    return re.split(r"\.\d+\.", name)[-1]


def linear_layers(model: Any) -> list[str]:
    """Return what `all-linear` means in a model with such experts: the linear layers that are not experts."""
    import torch

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and name.rpartition(".")[2] not in OLD_NAMES
    ]


def left_out(model: Any) -> list[str]:
    """Return the linear layers that `all-linear` leaves out beside experts, with `*` for the layer's number.

    Shared experts and dense layers: peft takes their names for those of the experts.
    """
    import torch

    head, kept = model.get_output_embeddings(), set(linear_layers(model))
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and name not in kept
    ]
    return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))


def tell(model: Any, method: MethodSpec) -> None:
    """Log a warning if a method leaves out such experts of a model, or linear layers beside them."""
    experts = fused_experts(model)
    if method.lora is None or not experts or method.lora.target_modules != "all-linear":
        return
    if others := left_out(model):
        log.warning(
            "These linear layers have no adapter, since peft takes their names for those of experts: %s.",
            ", ".join(others),
        )
    if method.lora.target_parameters == "":
        log.warning(
            "The experts of this model are single tensors, not linear layers: %s. They have no adapter "
            "(targetParameters: []).",
            ", ".join(experts),
        )
