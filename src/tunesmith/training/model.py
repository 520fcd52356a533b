"""The model as it is trained: loaded, with the method of the manifest applied, and saved at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.api.finetune import FineTuneSpec, LoraMethod, MethodSpec
from tunesmith.engines.load import ADAPTER_CONFIG, load_model, resolve_dtype
from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer

if TYPE_CHECKING:
    import torch


def build_model(spec: FineTuneSpec, folder: Path) -> Any:
    """The model ready to train. New adapter weights follow from `training.seed` alone."""
    import torch
    from transformers import set_seed

    set_seed(spec.training.seed)
    dtype = resolve_dtype(folder, spec.model.dtype)
    # Full fine-tuning keeps its own weights in float32 and computes in `dtype` by autocast.
    stored = torch.float32 if spec.method.full is not None else dtype
    model = load_model(
        folder,
        dtype=stored,
        attention=spec.model.attention,
        trust_remote_code=spec.model.trust_remote_code,
    )
    model.config.use_cache = False
    if spec.training.gradient_checkpointing is True:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = spec.method.lora
    return model if lora is None else _with_lora(model, lora)


def _with_lora(model: Any, method: LoraMethod) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    targets: str | list[str] = method.target_modules
    if targets != "all-linear":
        targets = [name.strip() for name in method.target_modules.split(",") if name.strip()]
    config = LoraConfig(
        r=method.r,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"method.lora does not fit this model: {error}") from error


def base_name(source: ModelSource) -> str:
    """How the base model is named in an adapter's configuration: a hub's name, else the address."""
    assert source.uri is not None
    return source.uri.removeprefix("hf://")


def save_final(
    model: Any, tokenizer: ChatTokenizer, spec: FineTuneSpec, dtype: torch.dtype, folder: Path
) -> None:
    """Adapter or full weights as safetensors, tokenizer and chat template: what plain transformers loads."""
    folder.mkdir(parents=True, exist_ok=True)
    if spec.method.full is not None:
        state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        model.config.use_cache = True
        model.config.dtype = dtype
        model.save_pretrained(folder, state_dict=state)
    else:
        model.save_pretrained(folder)
        _name_base(folder / ADAPTER_CONFIG, spec)
    tokenizer.tokenizer.save_pretrained(folder)


def _name_base(path: Path, spec: FineTuneSpec) -> None:
    """The adapter names the base of the manifest, not a folder of the machine that trained it."""
    config = json.loads(path.read_text("utf-8"))
    config["base_model_name_or_path"] = base_name(spec.model)
    config["revision"] = spec.model.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def method_name(method: MethodSpec) -> str:
    """full, lora or qlora."""
    return next(name for name in ("full", "lora", "qlora") if getattr(method, name) is not None)
