"""The adapter that is trained, and the frozen ones beneath it.

The model's output is base + earlier adapters + new one: peft adds the active adapters, each in its own
precision, so the sum is exact over bf16 and over 4-bit weights, which merging would round. The result is one
adapter over the original base: B₁A₁ + B₂A₂ = [B₁ B₂]·[A₁; A₂], with the ranks concatenated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.api.finetune import LoraMethod
from tunesmith.engines.adapter import (
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    changes_tied,
    load_adapter,
    put_weights,
    read_weights,
)
from tunesmith.errors import ModelError
from tunesmith.names import TRAINED_ADAPTER
from tunesmith.training.targets import target_modules, target_parameters

log = logging.getLogger(__name__)
TRAINED = "default"
StateDict = Mapping[str, Any]


def has_adapters(model: Any) -> bool:
    """Return whether the model is a base with adapters, rather than fully trained."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _earlier(model: Any) -> list[str]:
    """Return the names of the frozen adapters, the lowest first."""
    return [name for name in model.peft_config if name != TRAINED]


def add_trained(model: Any, method: LoraMethod, earlier: Sequence[Path] = ()) -> Any:
    """Return the model with a new adapter over frozen earlier ones; only the new one is trained, in float32.

    The new one is created first, so that its initial weights do not depend on the earlier ones.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        use_rslora=method.use_rslora,
        init_lora_weights=True if method.init_lora_weights == "default" else method.init_lora_weights,
        target_modules=target_modules(model, method),
        target_parameters=target_parameters(model, method) or None,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        model = get_peft_model(model, config, adapter_name=TRAINED)
    except ValueError as error:
        raise ModelError(f"spec.method does not fit this model: {error}") from error
    names = [f"earlier_{number}" for number in range(len(earlier))]
    for name, folder in zip(names, earlier, strict=True):
        load_adapter(model, folder, name)
    if names:
        model.base_model.set_adapter([*names, TRAINED])
        model.base_model.set_requires_grad(names, requires_grad=False)
    if changes_tied(model):
        log.warning(
            "An adapter that this job starts from changes one of two tied embeddings. The published model "
            "has it too: keep it as an adapter, since merging it would change both embeddings."
        )
    return model


def trained_parameters(model: Any) -> list[str]:
    """Return the names of parameters, as experts that are one tensor, on which the trained adapter is."""
    return sorted(model.peft_config[TRAINED].target_parameters or ()) if has_adapters(model) else []


def merge_all(model: Any, adapters: Sequence[Path]) -> Any:
    """Return the model with adapters merged into its weights, all of them trainable; meant for float32."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import gather_params_ctx

    for folder in adapters:
        adapted = load_adapter(model, folder)
        refuse_tied(adapted, folder)
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                with gather_params_ctx(base_weight(module)):  # under ZeRO-3 it is sharded
                    module.merge(safe_merge=True)
        model = adapted.unload()
    return model.requires_grad_(True)


def base_weight(module: Any) -> Any:
    """Return the weight that a module's adapters are for."""
    from peft.tuners.lora import ParamWrapper

    return module.get_param() if isinstance(module, ParamWrapper) else module.get_base_layer().weight


def refuse_tied(model: Any, folder: Path) -> None:
    """Raise ModelError if an adapter changes one of two tied embeddings.

    Input and output embeddings that are one matrix cannot absorb an adapter of only one of them.
    """
    if changes_tied(model):
        raise ModelError(
            f"The adapter in {folder} changes an embedding that this model ties to the other one; "
            "it cannot be merged for method.full. Use method.lora."
        )


# --- Files ------------------------------------------------------------------------------------------------


def save_trained(model: Any, folder: Path, state: StateDict | None = None) -> None:
    """Write the trained adapter, and no other, as peft does. `state` has all weights if they are sharded."""
    model.save_pretrained(
        str(folder), selected_adapters=[TRAINED], save_embedding_layers=False, state_dict=state
    )


def save_for_resume(model: Any, checkpoint: Path) -> None:
    """Write the trained adapter alone to a separate folder, if the checkpoint's adapter combines several."""
    if _earlier(model):
        save_trained(model, checkpoint / TRAINED_ADAPTER)


def load_trained(model: Any, checkpoint: Path) -> None:
    """Set the weights of the trained adapter; which adapters are active or trained does not change."""
    alone = checkpoint / TRAINED_ADAPTER
    put_weights(model, read_weights(alone if alone.is_dir() else checkpoint), TRAINED)


def save_combined(model: Any, folder: Path, state: StateDict | None = None) -> None:
    """Write all adapters as one over the original base. `state` has all weights if they are sharded.

    All modules get the same rank and there are no patterns, since not every engine reads those: modules with
    a lower rank are padded with zeros. The scales are multiplied into B, so alpha = r (a scale of 1).
    """
    from peft import LoraConfig, TaskType
    from safetensors.torch import save_file

    if not _earlier(model):
        save_trained(model, folder, state)
        return
    weights = _combined(model, state)
    rank = next(
        tensor.shape[0] // _experts(model, name) for name, tensor in weights.items() if name.endswith(LORA_A)
    )
    trained = model.peft_config[TRAINED]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        lora_dropout=trained.lora_dropout,
        target_modules=_targets(model, weights),
        target_parameters=trained.target_parameters,
        fan_in_fan_out=trained.fan_in_fan_out,
        task_type=TaskType.CAUSAL_LM,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def _combined(model: Any, state: StateDict | None) -> dict[str, Any]:
    """Return the matrices of all adapters, concatenated, on the CPU, padded to one rank."""
    import torch
    from peft import get_peft_model_state_dict
    from torch.nn.functional import pad

    parts: dict[str, list[Any]] = {}
    for adapter in [*_earlier(model), TRAINED]:
        own = get_peft_model_state_dict(model, state, adapter, save_embedding_layers=False)
        for name, tensor in own.items():
            scale = _scale(model, name, adapter) if name.endswith(LORA_B) else 1.0
            where = "meta" if tensor.is_meta else "cpu"
            parts.setdefault(name, []).append(tensor.detach().to(where, torch.float32) * scale)
    joined = {
        name: torch.cat([_by_rank(model, name, each) for each in found], 1) for name, found in parts.items()
    }
    rank = max(tensor.shape[1] for tensor in joined.values())
    filled = {name: pad(each, (0, 0, 0, rank - each.shape[1])) for name, each in joined.items()}
    return {
        name: each.flatten(*((0, 1) if name.endswith(LORA_A) else (1, 2))).contiguous()
        for name, each in filled.items()
    }


def _by_rank(model: Any, name: str, tensor: Any) -> Any:
    """Return a matrix with its rank as the second dimension: A (experts, r, in), B (out, r, experts)."""
    experts = _experts(model, name)
    if name.endswith(LORA_A):
        return tensor.reshape(experts, -1, tensor.shape[-1])
    return tensor.reshape(tensor.shape[0], -1, experts)


def _experts(model: Any, name: str) -> int:
    """Return how many experts share the module of a matrix; 1 for linear layers and embeddings."""
    return int(getattr(model.get_submodule(_module_of(name)), "num_experts", 1))


def _module_of(name: str) -> str:
    suffix = next(suffix for suffix in LORA_A + LORA_B if name.endswith(suffix))
    return name.removesuffix(suffix)


def _scale(model: Any, name: str, adapter: str) -> float:
    """Return the factor of the product of a module's matrices: alpha / r, or alpha / √r."""
    return float(model.get_submodule(_module_of(name)).scaling[adapter])


def _targets(model: Any, weights: StateDict) -> list[str]:
    """Return the last parts of the modules' names if they match no other modules, else the full names."""
    from peft.tuners.lora import LoraLayer

    prefix = "base_model.model."
    suffixes = LORA_A + LORA_B
    covered = {
        name.removeprefix(prefix).removesuffix(suffix)
        for name in weights
        for suffix in suffixes
        if name.endswith(suffix) and _experts(model, name) == 1
    }
    short = {name.rpartition(".")[2] for name in covered}
    inner = tuple(
        f"{name}." for name, module in model.base_model.model.named_modules() if isinstance(module, LoraLayer)
    )
    meant = {
        name
        for name, _ in model.base_model.model.named_modules()
        if name.rpartition(".")[2] in short and not name.startswith(inner)
    }
    return sorted(short if meant == covered else covered)
