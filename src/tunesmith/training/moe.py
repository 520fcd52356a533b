"""Experts that are one tensor for a whole layer: neither LoRA's `all-linear` nor 4 bits reach them.

transformers keeps them so since version 5. peft would take `all-linear`, and the old names of the experts'
matrices, for these tensors, with adapters that other engines do not read; here they stay as they are.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from tunesmith.api.finetune import MethodSpec

log = logging.getLogger(__name__)
# Last names that peft reads as the experts of such models, also where a dense layer has them.
OLD_NAMES = frozenset(("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"))


def fused_experts(model: Any) -> list[str]:
    """Their names, `*` for the layer's number."""
    found = {
        re.sub(r"\.\d+\.", ".*.", name): None
        for name, weight in model.named_parameters()
        if weight.ndim == 3 and weight.is_floating_point()
    }
    return list(found)


def linear_layers(model: Any) -> list[str]:
    """Names of what `all-linear` means in a model with such experts: linear layers that are none of them."""
    import torch

    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and name.rpartition(".")[2] not in OLD_NAMES
    ]


def tell(model: Any, method: MethodSpec) -> None:
    """Say what a method leaves out of a model with such experts."""
    lora = method.lora or method.qlora
    experts = fused_experts(model)
    if lora is None or not experts:
        return
    left = [] if method.qlora is None else ["are not quantised"]
    if lora.target_modules == "all-linear":
        left.append("have no adapter (targetModules: all-linear)")
    if left:
        log.warning(
            "The experts of this model are single tensors, not linear layers: %s. They %s.",
            ", ".join(experts),
            " and ".join(left),
        )
