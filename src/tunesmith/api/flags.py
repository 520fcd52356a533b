"""Settings of other tools, and the manifest field that corresponds to each.

Names as the Hugging Face Trainer, TRL, LLaMA-Factory, Axolotl and people's own scripts spell them. Used for
hints if a manifest contains such a name, and by `tunesmith convert-config`. Values are not converted here.
"""

from __future__ import annotations

import re

_FLAGS = {
    "model.uri": "model_name_or_path model_name model_path base_model pretrained_model_name_or_path",
    "model.revision": "model_revision revision_of_model",
    "model.adapterUri": "adapter_name_or_path adapter_path lora_model_dir lora_path stage1_adapter_path",
    "model.dtype": "dtype torch_dtype",
    "model.attention": "attn_implementation attn_impl flash_attn flash_attention",
    "model.trustRemoteCode": "trust_remote_code",
    "training.numTrainEpochs": "num_train_epochs num_epochs max_epochs epochs epoch n_epochs",
    "training.maxSteps": "max_steps max_train_steps",
    "training.perDeviceTrainBatchSize": (
        "per_device_train_batch_size batch_size micro_batch_size train_batch_size per_device_batch_size"
    ),
    "training.gradientAccumulationSteps": (
        "gradient_accumulation_steps grad_accum grad_accum_steps accumulation_steps gradient_accumulation"
    ),
    "training.learningRate": "learning_rate lr",
    "training.lrScheduler": "lr_scheduler lr_scheduler_type scheduler",
    "training.warmupSteps": "warmup_steps warmup num_warmup_steps",
    "training.weightDecay": "weight_decay wd",
    "training.maxGradNorm": "max_grad_norm gradient_clipping grad_clip",
    "training.optimizer": "optimizer optim",
    "training.maxLength": "max_length max_seq_length max_seq_len sequence_len cutoff_len model_max_length",
    "training.packing": "packing sample_packing",
    "training.gradientCheckpointing": "gradient_checkpointing activation_checkpointing",
    "training.loggingSteps": "logging_steps",
    "training.saveSteps": "save_steps",
    "training.saveTotalLimit": "save_total_limit",
    "training.evalSteps": "eval_steps",
    "training.seed": "random_seed",
    "training.earlyStopping.patience": "early_stopping_patience",
    "training.earlyStopping.threshold": "early_stopping_threshold",
    "method.lora.r": "lora_r lora_rank rank",
    "method.lora.alpha": "lora_alpha",
    "method.lora.dropout": "lora_dropout",
    "method.lora.targetModules": "lora_target lora_target_modules target_modules",
    "method.lora.useRslora": "use_rslora peft_use_rslora",
    "method.lora.targetParameters": "lora_target_parameters target_parameters",
    "method.qlora.doubleQuant": "use_bnb_nested_quant double_quantization bnb_4bit_use_double_quant",
    "method.qlora.quantType": "bnb_4bit_quant_type quantization_type",
    "deepspeed.zeroStage": "zero_stage",
    "validation.ratio": "val_ratio val_size val_set_size validation_ratio validation_split test_split_size",
    "datasets[0].uri": "dataset_path dataset_name dataset train_file training_file",
    "datasets[0].config": "dataset_config dataset_config_name",
    "datasets[0].split": "dataset_train_split dataset_split",
    "datasets[0].limit": "max_samples max_train_samples",
    "datasets[0].userSimulation.ablationConfig": "ablation_config",
    "datasets[0].userSimulation.promptStyle": "prompt_style",
    "datasets[0].userSimulation.maxSamplesPerUser": "max_samples_per_user",
    "datasets[0].userSimulation.oneSamplePerUser": "one_sample_per_user",
    "datasets[0].userSimulation.sampleSeed": "sample_seed",
    "prompts.uri": "training_data prompts_path",
    "prompts.legalJudgement.articlesUri": "articles articles_path",
    "sampling.numSamples": "num_samples",
    "sampling.temperature": "temperature",
    "sampling.topP": "top_p",
    "sampling.topK": "top_k",
    "sampling.maxNewTokens": "max_new_tokens max_tokens",
    "tracking.wandb.project": "wandb_project",
    "tracking.wandb.runName": "wandb_run_name wandb_name run_name",
    "tracking.wandb.entity": "wandb_entity",
    "tracking.mlflow.experiment": "mlflow_experiment_name",
    "tracking.mlflow.trackingUri": "mlflow_tracking_uri",
    "resources.nodes": "nnodes num_nodes num_machines",
    "resources.gpusPerNode": "nproc_per_node num_processes gpus num_gpus n_gpus",
    "output.uri": "output_dir output_path save_dir",
    "hub.endpoint": "hf_endpoint",
    "hub.offline": "hf_hub_offline local_files_only",
}
FIELD_OF = {flag: field for field, flags in _FLAGS.items() for flag in flags.split()}
_NO_WHOLE_MODULES = (
    "; whole modules are not trained beside an adapter: they would be in the base's 16 bits, and vLLM reads "
    "no such adapter. Name them in targetModules, if the embeddings are not tied, or use method.full"
)
_NOT_OFFERED = dict.fromkeys(
    ("modules_to_save", "lora_modules_to_save", "additional_target"), _NO_WHOLE_MODULES
)
# Blocks for which people write a single value, and the field they mean by it.
_MEANT = {
    "model": "uri",
    "output": "uri",
    "seeds": "uri",
    "prompts": "uri",
    "subset": "ratio",
    "validation": "ratio",
    "deepspeed": "zeroStage",
    "earlyStopping": "patience",
    "scratch": "size",
    "wandb": "project",
    "mlflow": "experiment",
    "budget": "maxUsd",
    "history": "maxItems",
    "character": "name",
}


def snake(name: str) -> str:
    """Return a flag as the table spells it: `--Learning-Rate` and `learningRate` are learning_rate."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip().lstrip("-"))
    return words.replace("-", "_").lower()


def field_hint(name: object, fields: list[str]) -> str:
    """Return a hint for an unknown field that is another tool's name; "" if it is none.

    `fields` are those of the kind's spec, since not every kind has every block.
    """
    spelled = snake(str(name)[:80])
    if spelled in _NOT_OFFERED and "method" in fields:
        return _NOT_OFFERED[spelled]
    field = FIELD_OF.get(spelled, "")
    return f"; write {field} instead" if re.split(r"[.\[]", field)[0] in fields else ""


def block_hint(name: object, value: object, shown: str, fields: list[str]) -> str:
    """Return a hint for a single value where a block with `fields` is expected; "" if there is none.

    `shown` is the value as it may be printed.
    """
    if value is True:
        return f"; write {name}: {{}}"
    if isinstance(value, str) and value in fields:
        return f"; write {name}: {{{value}: {{}}}}"
    meant = _MEANT.get(str(name))
    if meant in fields and isinstance(value, str | int | float):
        return f"; write {name}: {{{meant}: {shown}}}"
    return ""
