"""Configurations of other tools that no FineTuneJob corresponds to, and why."""

from __future__ import annotations

from collections.abc import Iterable

from tunesmith.api.flags import FIELD_OF
from tunesmith.errors import UsageError
from tunesmith.local.tool_settings import ToolSettings

_ONLY = "only supervised fine-tuning can be converted"
_IMAGES = "a model that reads images or sound is trained, and only text can be converted"
_OTHER_FILES = {
    "zero_optimization": "is a configuration of DeepSpeed: put its content into deepspeed.config of the job",
    "distributed_type": (
        "is a configuration of accelerate: a job's processes follow from resources.nodes and "
        "resources.gpusPerNode"
    ),
    "train_dataset": (
        "is a configuration of LLaMA-Factory v1, which is not supported; one with model_name_or_path and "
        "dataset is"
    ),
}
# Settings of runs that do not fine-tune on replies; others have their place among the notes.
_PREFERENCES = (
    "beta", "max_prompt_length", "num_generations", "max_completion_length", "reward_funcs",
    "reward_model_name_or_path", "reward_model_path", "sft_model_path", "teacher_model_name_or_path",
    "precompute_ref_log_probs", "desirable_weight", "simpo_gamma", "cpo_alpha",
)  # fmt: skip
_REWARDS = ("rl", "reward_model", "process_reward_model", "num_labels", "diffusion")
_SEES = (
    "processor_type", "freeze_mm_modules", "image_size", "image_max_pixels", "video_max_pixels",
    "audio_sampling_rate", "freeze_vision_tower", "freeze_multi_modal_projector",
)  # fmt: skip
_NO_TRAINING = ("export_dir", "infer_backend", "do_predict")


def refuse(settings: ToolSettings, tool: str, source: str) -> None:
    """Raise UsageError, with the setting that says so, if no FineTuneJob corresponds to a configuration."""
    for setting, what in _OTHER_FILES.items():
        if setting in settings and "model_name_or_path" not in settings:
            raise UsageError(f"{source} {what}.")
    if all(FIELD_OF.get(name) != "model.uri" for name, value in settings.items() if value):
        file = settings.get("config")
        raise UsageError(
            f"{source} has its settings in {file}: convert that file."
            if file
            else f"{source} names no model (model_name_or_path, or base_model): it configures no training."
        )
    for names, why in ((_SEES, _IMAGES), *_OF_TOOL[tool]):
        _refuse_any(settings, names, why, source)
    allowed = {"stage": ("sft", "pt"), "finetuning_type": ("lora", "full"), "adapter": ("lora", "qlora")}
    for name, values in allowed.items():
        value = settings.get(name)
        if value and value not in values:
            why = _ONLY if name == "stage" else "a method can be full, lora or qlora"
            raise UsageError(f"{source} has {name}: {value}; {why}.")


def _refuse_any(settings: ToolSettings, names: Iterable[str], why: str, source: str) -> None:
    for name in names:
        if settings.get(name):
            raise UsageError(f"{source} sets {name}: {why}.")


_OF_TOOL = {
    "trl": ((_PREFERENCES, _ONLY),),
    "axolotl": ((_REWARDS, _ONLY),),
    "llamafactory": ((_NO_TRAINING, "it does not train"),),
}
