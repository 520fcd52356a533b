"""The defaults of TRL, LLaMA-Factory and Axolotl, and settings that need no field."""

from __future__ import annotations

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
    "trl": {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05},
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
    "dataloader_num_workers", "plot_loss", "ddp_timeout", "ddp_find_unused_parameters", "bf16", "fp16",
    "tf32", "dataset_prepared_path", "dataset_num_proc", "packing", "sample_packing",
    "eval_sample_packing", "eval_packing", "pad_to_sequence_len", "group_by_length", "use_peft",
    "finetuning_type", "adapter", "load_in_4bit", "load_in_8bit", "quantization_bit",
    "quantization_method", "template", "chat_template", "strict", "logging_strategy", "save_strategy",
    "eval_strategy", "do_eval", "dataset_dir", "wandb_watch", "wandb_log_model", "lora_target_linear",
    "model_type", "tokenizer_type", "is_llama_derived_model", "resume_from_checkpoint", "streaming",
))  # fmt: skip
SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt")
OPTIMIZERS = {
    "adamw_torch": "adamw_torch",
    "adamw_torch_fused": "adamw_torch_fused",
    "adamw_hf": "adamw_torch",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "adamw_8bit": "paged_adamw_8bit",
}
