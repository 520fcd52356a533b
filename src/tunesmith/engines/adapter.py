"""LoRA adapters: reading an adapter's files, and adding it to a model.

Only what every engine can add to a model is accepted: pairs of low-rank matrices, nothing that replaces or
changes weights of the base. Errors name what is rejected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith.api.common import ModelSource
from tunesmith.engines.load import read_config
from tunesmith.errors import ModelError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Down- and up-projections, of linear layers and of embeddings.
LORA_A = (".lora_A.weight", ".lora_embedding_A")
LORA_B = (".lora_B.weight", ".lora_embedding_B")

# Settings of peft's LoRA with which an adapter is more than, or different from, matrices added to the base.
_BEYOND = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
)
# Initialisations that do not change the base; the others (PiSSA, OLoRA, LoftQ, …) subtract something from it.
_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")


def is_adapter(folder: Path) -> bool:
    """Return whether the folder contains an adapter instead of a full model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_source(folder: Path) -> ModelSource:
    """Return the base model that an adapter names. Raises ModelError if it names none that is usable."""
    config = read_config(folder / ADAPTER_CONFIG)
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named:
        raise ModelError(f"The adapter in {folder} does not name its base model.")
    uri = named if "://" in named or named.startswith("/") else f"hf://{named}"
    on_hub = uri.startswith("hf://")
    try:
        return ModelSource(uri=uri, revision=revision if on_hub and revision else None)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ModelError(f"The adapter in {folder} names {named!r} as its base model: {message}.") from None


def check_plain(folder: Path) -> None:
    """Raise ModelError if the adapter is not plain LoRA, naming what it is."""
    config = read_config(folder / ADAPTER_CONFIG)
    kind = config.get("peft_type")
    found = [] if kind == "LORA" else [f"peft_type {kind}"]
    found += [name for name in _BEYOND if config.get(name)]
    if config.get("bias", "none") != "none":
        found.append(f"bias {config['bias']}")
    if config.get("init_lora_weights", True) not in _BEGINNINGS:
        found.append(f"init_lora_weights {config['init_lora_weights']}")
    if found:
        raise ModelError(
            f"The adapter in {folder} is not plain LoRA ({', '.join(found)}), which is not supported. "
            "Merge it into its base model first."
        )


def read_weights(folder: Path) -> dict[str, Any]:
    """Return an adapter's matrices by name. Raises ModelError if the file is missing, damaged or has more."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Any] = load_file(folder / ADAPTER_WEIGHTS)
    except FileNotFoundError:
        raise ModelError(f"The adapter in {folder} has no weights: {ADAPTER_WEIGHTS} is missing.") from None
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter in {folder} cannot be read: {error}.") from error
    others = sorted(name for name in state if not name.endswith(LORA_A + LORA_B))
    if others:
        raise ModelError(
            f"The adapter in {folder} is not plain LoRA: it has {others[0]}"
            + (f" and {len(others) - 1} more such weights." if len(others) > 1 else ".")
        )
    return state


def lora_scale(config: Mapping[str, Any], module: str, rank: int, adapter: Path) -> float:
    """Return peft's factor of the product of a module's matrices: alpha / r, or alpha / √r."""
    patterns = config.get("alpha_pattern") or {}
    own = [alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module)]
    alpha = own[0] if own else config.get("lora_alpha")
    if not isinstance(alpha, (int, float)):
        raise ModelError(f"The adapter in {adapter} has no lora_alpha in {ADAPTER_CONFIG}.")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def load_adapter(model: Any, folder: Path, name: str = "default") -> Any:
    """Return the model with an adapter added, frozen and without dropout; more can be added to the result.

    Raises ModelError if the adapter is not plain LoRA or was made for another model.
    """
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model

    if not is_adapter(folder):
        raise ModelError(f"{folder} has no adapter: {ADAPTER_CONFIG} is missing.")
    check_plain(folder)
    state = read_weights(folder)
    try:
        config = LoraConfig.from_pretrained(str(folder))
        # A loaded adapter is not trained, and its initialisation does not matter.
        config.inference_mode, config.lora_dropout, config.init_lora_weights = True, 0.0, True
        config.task_type = TaskType.CAUSAL_LM
        config.base_model_name_or_path = None  # peft warns of another name, which every local copy has
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
        put_weights(model, state, name)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"The adapter in {folder} does not fit its base model: {_reason(error)}.") from error
    return model


def put_weights(model: Any, state: dict[str, Any], name: str) -> None:
    """Set the matrices of an adapter in the model. Raises ValueError unless they match exactly."""
    from peft import set_peft_model_state_dict

    result = set_peft_model_state_dict(model, state, adapter_name=name)
    unknown = sorted(result.unexpected_keys)
    missing = sorted(key for key in result.missing_keys if ".lora_" in key and name in key.split("."))
    if unknown:
        raise ValueError(f"the model has no module for {unknown[0]} ({len(unknown)} in all)")
    if missing:
        raise ValueError(f"{missing[0]} is missing ({len(missing)} in all)")


def tied_ends(model: Any) -> list[Any]:
    """Return the model's input and output embeddings if they are one matrix; an empty list otherwise."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    plain = [end.base_layer if isinstance(end, BaseTunerLayer) else end for end in ends]
    return ends if len(plain) == 2 and plain[0].weight is plain[1].weight else []


def changes_tied(model: Any) -> bool:
    """Return whether an adapter is on one of two tied embeddings."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(end, BaseTunerLayer) for end in tied_ends(model))


def _reason(error: Exception) -> str:
    """Return the line that names what does not fit, of a message that may be long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sizes = [line for line in lines if line.startswith("size mismatch")]
    return ([*sizes, *lines] or [type(error).__name__])[0].rstrip(".")
