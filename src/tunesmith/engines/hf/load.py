"""Load a model for generation: its base with the adapters on it, on the device.

Adapters are merged into the weights, which is faster; if that is not possible (quantised weights, or an
adapter on a tied embedding) they stay separate.
"""

from __future__ import annotations

from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.engines.adapter import changes_tied, load_adapter
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.load import load_model, model_config, resolve_dtype


def load_for_generation(files: ModelFiles, source: ModelSource) -> Any:
    """Return the model on this process's GPU, else on the CPU. Raises ModelError if it cannot be used."""
    import torch
    from transformers import GenerationConfig

    model = load_model(
        files.base,
        dtype=resolve_dtype(files.base, source.dtype),
        attention=source.attention,
        trust_remote_code=source.trust_remote_code,
    )
    quantised = bool(model_config(files.base).get("quantization_config"))
    if files.adapters:
        model = _with_adapters(model, files, merge=not quantised)
    if torch.cuda.is_available() and not quantised:  # quantised weights are on the GPU already
        model = model.to("cuda")
    # A checkpoint's own settings (penalties, sampling, EOS) are not those of the manifest.
    model.generation_config = GenerationConfig()
    return model.eval().requires_grad_(False)


def _with_adapters(model: Any, files: ModelFiles, *, merge: bool) -> Any:
    names = [f"adapter_{number}" for number in range(len(files.adapters))]
    adapted = model
    for name, folder in zip(names, files.adapters, strict=True):
        adapted = load_adapter(adapted, folder, name)
    if merge and not changes_tied(adapted):
        return adapted.merge_and_unload(adapter_names=names)
    adapted.base_model.set_adapter(names)
    return adapted.get_base_model()
