"""The settings of TRL, LLaMA-Factory and Axolotl: defaults, those that need no field, what notes show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.data.lengths import DEFAULT

ToolSettings = dict[str, Any]

# The Hugging Face Trainer's, where ours are others.
_TRAINER: ToolSettings = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "save_steps": 500,
}
DEFAULTS: Mapping[str, ToolSettings] = {
    "trl": {**_TRAINER, "learning_rate": 2e-5, "max_length": 1024},
    "llamafactory": {**_TRAINER, "cutoff_len": 2048},
    "axolotl": {
        "micro_batch_size": 1, "gradient_accumulation_steps": 1, "num_epochs": 1, "lr_scheduler": "cosine",
        "weight_decay": 0.0, "sequence_len": 512,
    },
}  # fmt: skip
LORA_DEFAULTS: Mapping[str, ToolSettings] = {
    "trl": {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "use_bnb_nested_quant": False},
    "llamafactory": {"lora_rank": 8, "lora_dropout": 0.0},
    "axolotl": {"lora_dropout": 0.0},
}
_NO_LIMIT = (
    "max_length: null means no limit, which is not supported: training.maxLength is left out, and samples "
    f"are truncated to the model's positions, at most {DEFAULT:,} tokens. Set it to keep longer ones."
)
# Settings that mean something if they are null, with what to say of it; any other null is as good as absent.
NULLS: Mapping[str, Mapping[str, str]] = {"trl": {"max_length": _NO_LIMIT}}
# Settings that ask for what is done anyway, or say nothing of the result.
NEEDLESS = frozenset((
    "do_train", "stage", "overwrite_cache", "overwrite_output_dir", "preprocessing_num_workers",
    "preprocessing_batch_size", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_pin_memory", "dataset_processes", "plot_loss", "ddp_timeout", "ddp_find_unused_parameters",
    "fp16", "tf32", "dataset_prepared_path", "tokenized_path", "dataset_num_proc",
    "eval_sample_packing", "eval_packing", "pad_to_sequence_len", "use_peft", "finetuning_type", "adapter",
    "load_in_4bit", "strict", "logging_strategy", "logging_first_step", "logging_dir", "log_level",
    "save_strategy", "eval_strategy", "do_eval", "dataset_dir", "is_llama_derived_model", "tokenizer_type",
    "auto_resume_from_checkpoints", "streaming", "per_device_eval_batch_size", "eval_batch_size",
    "gradient_checkpointing_kwargs", "use_reentrant_gc", "save_only_model", "save_safetensors",
    "low_cpu_mem_usage", "remove_unused_columns", "include_num_input_tokens_seen", "use_fast_tokenizer",
    "tokenizer_use_fast", "use_kernels", "use_liger_kernel", "enable_liger_kernel", "liger_rope",
    "liger_rms_norm", "liger_glu_activation", "liger_swiglu", "liger_layer_norm", "liger_cross_entropy",
    "liger_fused_linear_cross_entropy", "cut_cross_entropy", "lora_mlp_kernel", "lora_qkv_kernel",
    "lora_o_kernel", "flash_attn_cross_entropy", "flash_attn_rms_norm", "flash_attn_fuse_mlp",
    "torch_compile", "torch_compile_backend", "torch_compile_mode", "device_map", "experts_implementation",
    "use_wandb", "use_tensorboard",
))  # fmt: skip
# Values of settings that ask for what is done anyway; other values are notes.
USUAL: Mapping[str, tuple[Any, ...]] = {
    "bf16": (True, "auto", "full"),
    "load_in_8bit": (False,),
    "quantization_bit": (4,),
    "quantization_method": ("bnb", "bitsandbytes"),
    "packing": (False,),
    "sample_packing": (False,),
    "neat_packing": (False,),
    "group_by_length": (False,),
    "lora_target_linear": (True, False),
    "train_on_inputs": (False,),
    "train_on_prompt": (False,),
    "mask_history": (False,),
    "assistant_only_loss": (True,),
    "completion_only_loss": (True,),
    "resume_from_checkpoint": (True, False),
    "evals_per_epoch": (1,),
    "push_to_hub": (False,),
    "disable_gradient_checkpointing": (False,),
    "model_type": ("AutoModelForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"),
    "wandb_watch": (False, ""),
    "wandb_log_model": (False, ""),
}
# What to say of settings that have no field, but a way.
_LABELS = "; labels are the replies alone. For whole documents use the format text."
_TO_HUB = " is left out: export.hub publishes to the hub, and needs hub.tokenSecretRef."
_SHARDS = " has no corresponding field: deepspeed, as {{zeroStage: 3}}, shards a model over GPUs."
HINTS: Mapping[str, str] = {
    "train_on_inputs": _LABELS,
    "train_on_prompt": _LABELS,
    "assistant_only_loss": _LABELS,
    "completion_only_loss": _LABELS,
    "push_to_hub": _TO_HUB,
    "hub_model_id": _TO_HUB,
    "fsdp": _SHARDS,
    "fsdp_config": _SHARDS,
    "load_in_8bit": " is left out: the weights stay in 16 bits; method.qlora has 4.",
    "quantization_bit": " is left out: the weights stay in 16 bits; method.qlora has 4.",
    "saves_per_epoch": " has no corresponding field: set training.saveSteps, a number of steps.",
    "evals_per_epoch": " has no corresponding field: set training.evalSteps; absent, once per epoch.",
}
TEMPLATES = ("chatml", "llama3", "mistral")
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_torch_fused": "adamw_torch_fused",
    "adamw_hf": "adamw_torch",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "adamw_8bit": "paged_adamw_8bit",
    "adamw_torch_8bit": "paged_adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
}
# Names whose values may be secrets, which have no place in a file that is kept in Git; these tokens are none.
_MAY_BE_SECRET = re.compile(r"token|key|password|secret|credential|auth", re.IGNORECASE)
_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def shown(key: str, value: Any) -> str:
    """Return a setting as notes show it: without its value if that may be a secret or has one inside."""
    named = key if isinstance(value, str | int | float) else f"{key} {value}"
    return key if key not in _TOKENS and _MAY_BE_SECRET.search(named) else f"{key}: {value}"
