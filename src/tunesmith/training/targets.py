"""The modules that get an adapter: `targetModules` matched against the model's modules.

peft accepts a list in which one name matches and silently ignores the others; here each must match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.finetune import LoraMethod, QloraMethod
from tunesmith.engines.adapter import tied_ends
from tunesmith.errors import ModelError
from tunesmith.training.moe import (
    OLD_NAMES,
    expert_parameters,
    fused_experts,
    linear_layers,
    short_name,
)

ALL = "all-linear"
_SHOWN = 24


def target_modules(model: Any, method: LoraMethod) -> str | list[str]:
    """Return `targetModules` as passed to peft. Raises ModelError if a name cannot have an adapter."""
    if method.target_modules == ALL:
        return linear_layers(model) if fused_experts(model) else ALL
    field = f"spec.method.{'qlora' if isinstance(method, QloraMethod) else 'lora'}.targetModules"
    names = list(dict.fromkeys(name.strip() for name in method.target_modules.split(",") if name.strip()))
    modules = [name for name, _ in model.named_modules()]
    fitting = {name: {module for module in modules if fits(name, module)} for name in names}
    _refuse_experts(model, field, names)
    missing = [name for name in names if not fitting[name]]
    if missing:
        raise ModelError(
            f"{field}: the model has no module named {' or '.join(missing)}. Its linear "
            f"modules are {_listed(last_names(model))}; {ALL} means all of them "
            "except the output layer."
        )
    _refuse_tied(model, field, fitting)
    return names


def target_parameters(model: Any, method: LoraMethod) -> list[str]:
    """Return the parameters that get an adapter, as passed to peft: experts that are one tensor.

    Raises ModelError for a name that matches none, and if experts do not support what the method requires.
    """
    kind = "qlora" if isinstance(method, QloraMethod) else "lora"
    experts = expert_parameters(model)
    if experts and kind == "qlora":
        raise ModelError(_stay_in_16_bits(model))
    if method.target_parameters is None:
        names = sorted(set(map(short_name, experts))) if method.target_modules == ALL else []
    else:
        names = [name for name in method.target_parameters.split(",") if name]
    missing = [name for name in names if not any(fits(name, each) for each in experts)]
    if missing:
        there = _listed(sorted(set(map(short_name, experts)))) if experts else "none"
        raise ModelError(
            f"spec.method.{kind}.targetParameters: no parameter of three dimensions is named "
            f"{' or '.join(missing)}. The model has {there}."
        )
    if names and method.dropout:
        raise ModelError(
            f"spec.method.{kind}.dropout must be 0 for this model: its experts ({', '.join(names)}) are "
            "single tensors, whose adapters take no dropout. Set dropout: 0, or targetParameters: [] to keep "
            "the experts as they are."
        )
    return names


def _stay_in_16_bits(model: Any) -> str:
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    experts = sum(sizes[name] for name in expert_parameters(model))
    gigabytes, share = 2 * experts / 1e9, experts / sum(sizes.values())
    return (
        "spec.method.qlora: the experts of this model are single tensors, which 4 bits do not reach: "
        f"{gigabytes:,.2f} GB, {share:.0%} of its parameters, would stay in 16 bits. Use method.lora."
    )


def fits(name: str, module: str) -> bool:
    """Return whether peft adds an adapter to a module for a name: its full name, or a suffix after a dot."""
    return module == name or module.endswith(f".{name}")


def last_names(model: Any) -> list[str]:
    """Return the last parts of linear modules' names, each once; with the part before if that is a number."""
    import torch
    from transformers.pytorch_utils import Conv1D

    found: dict[str, None] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            parts = name.split(".")
            found[".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]] = None
    return list(found)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _refuse_experts(model: Any, field: str, names: Sequence[str]) -> None:
    """Raise ModelError for old names of experts that are one tensor: no engine reads the adapters on them."""
    experts = fused_experts(model)
    wrong = [name for name in names if name.rpartition(".")[2] in OLD_NAMES] if experts else []
    if wrong:
        raise ModelError(
            f"{field}: {', '.join(wrong)} cannot have an adapter in this model, since its experts are single "
            f"tensors ({', '.join(experts)}). Leave {'it' if len(wrong) == 1 else 'them'} out."
        )


def _refuse_tied(model: Any, field: str, fitting: dict[str, set[str]]) -> None:
    """Raise ModelError for an adapter on one of two tied embeddings, which peft would merge into both."""
    ends = tied_ends(model)
    named = {id(module): name for name, module in model.named_modules()}
    shared = [named[id(end)] for end in ends]
    wrong = [name for name, modules in fitting.items() if modules & set(shared)]
    if wrong:
        raise ModelError(
            f"{field}: {', '.join(wrong)} cannot have an adapter, since {' and '.join(shared)} of this model "
            "are one matrix (tie_word_embeddings), so that merging the adapter would change both. Leave "
            f"{'it' if len(wrong) == 1 else 'them'} out, or use method.full, which trains the matrix itself."
        )
