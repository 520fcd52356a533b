"""A model without weights, to test saving everything but the weights before the first step.

Its tensors are on torch's meta device: they have shapes and take no memory, so a model of any size is created
in a second or two.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.hub.problems import first_line
from tunesmith.engines.adapter import load_adapter
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.generation_config import mend_generation_config
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.training.adapters import add_trained, refuse_tied
from tunesmith.training.disk import is_disk_full

log = logging.getLogger(__name__)


def empty_model(spec: FineTuneSpec, files: ModelFiles) -> Any:
    """Return a model as `build_model` does, but empty. Raises ModelError if the method does not fit."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    trusted = spec.model.trust_remote_code
    config = AutoConfig.from_pretrained(files.base, local_files_only=True, trust_remote_code=trusted)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # of earlier adapters
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)
        if (files.base / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(files.base)
        mend_generation_config(model)
        lora = spec.method.lora or spec.method.qlora
        if lora is not None:
            return add_trained(model, lora, files.adapters)
        for folder in files.adapters:
            adapted = load_adapter(model, folder)
            refuse_tied(adapted, folder)
            model = adapted.unload()
    return model


@contextmanager
def no_weights_written() -> Iterator[None]:
    """Make transformers, peft and safetensors write everything of a model but its weights meanwhile."""
    import peft.peft_model
    import safetensors.torch
    from transformers import modeling_utils

    writers = (
        (modeling_utils, "safe_save_file"),
        (peft.peft_model, "safe_save_file"),
        (safetensors.torch, "save_file"),
    )
    with ExitStack() as stack:
        for module, name in writers:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, lambda *args, **kwargs: None)
        yield


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Raise ModelError for errors that a model's files cause in a library; what needs weights is skipped."""
    try:
        yield
    except NotImplementedError as error:  # from a tensor without weights
        log.info("Could not test saving this model before training: %s.", first_line(error))
    except Exception as error:
        if isinstance(error, TunesmithError) or is_disk_full(error):
            raise
        raise ModelError(
            f"This model cannot be saved after training, so it is not trained: {_reason(error)}. Fix the "
            "model's files (config.json, generation_config.json, tokenizer) and start again."
        ) from error


def _reason(error: Exception) -> str:
    """Return the error's first line, with the second if the first only announces it (ends with a colon)."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    whole = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return (whole or type(error).__name__).rstrip(".")
