"""The model to be trained: loaded, with the method of the manifest applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.finetune import FineTuneSpec, MethodSpec, QloraMethod
from tunesmith.engines.load import load_model, resolve_dtype
from tunesmith.training import moe
from tunesmith.training.adapters import add_trained, merge_all
from tunesmith.training.deepspeed.config import precision
from tunesmith.training.deepspeed.runtime import one_reads

if TYPE_CHECKING:
    import torch


def computed_in(spec: FineTuneSpec, folder: Path) -> torch.dtype:
    """Return the dtype that training computes in: the manifest's, or the one its DeepSpeed config enables."""
    import torch

    loaded = str(resolve_dtype(folder, spec.model.dtype)).removeprefix("torch.")
    dtype: torch.dtype = getattr(torch, precision(spec, loaded))
    return dtype


def build_model(
    spec: FineTuneSpec, folder: Path, adapters: Sequence[Path] = (), *, gradient_checkpointing: bool = False
) -> Any:
    """Return the model ready to train, over the adapters it starts from, the lowest first.

    New adapter weights are determined by `training.seed` alone.
    """
    import torch
    from transformers import set_seed

    set_seed(spec.training.seed)
    dtype = computed_in(spec, folder)
    method = spec.method
    with one_reads():
        model = load_model(
            folder,
            # Full fine-tuning keeps the weights in float32 and computes in `dtype` by autocast. DeepSpeed
            # has separate float32 weights, sharded, besides those it computes with.
            dtype=torch.float32 if method.full is not None and spec.deepspeed is None else dtype,
            attention=spec.model.attention,
            trust_remote_code=spec.model.trust_remote_code,
            quantization=None if method.qlora is None else _four_bits(method.qlora, dtype),
        )
    if method.qlora is not None:
        _keep_layout(model)
    model.config.use_cache = False
    if gradient_checkpointing:
        # Without re-entrance no input needs a gradient, which frozen embeddings do not have.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lora = method.lora or method.qlora
    if lora is None:
        return merge_all(model, adapters)
    moe.tell(model, method)
    return add_trained(model, lora, adapters)


def _four_bits(method: QloraMethod, dtype: torch.dtype) -> Any:
    """Return QLoRA's config (arXiv:2305.14314): linear layers except the last in 4 bits, all else in `dtype`.

    Nothing is converted to float32 (peft's `prepare_model_for_kbit_training` would): norms compute in float32
    anyway, and embeddings and output layer would take twice the memory.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=method.quant_type,
        bnb_4bit_use_double_quant=method.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_layout(model: Any) -> None:
    """Prevent bitsandbytes from repacking weights for CPUs with AVX512-BF16 when the model is in eval mode.

    No gradient flows through repacked weights, and they stay so when training continues.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def method_name(method: MethodSpec) -> str:
    """Return the method's name: full, lora or qlora."""
    return next(name for name in ("full", "lora", "qlora") if getattr(method, name) is not None)
