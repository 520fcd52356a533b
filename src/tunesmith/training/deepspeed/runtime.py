"""DeepSpeed itself: how it is started, and where we use it differently from the Trainer.

Nothing is compiled: neither a compiler nor the CUDA toolkit is needed.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.errors import PermanentError
from tunesmith.names import Reason
from tunesmith.training.deepspeed.config import Config

if TYPE_CHECKING:
    import torch

_SMALL = 1024  # elements of a tensor


def name_device(*, gpu: bool) -> None:
    """Set DeepSpeed's device, else it probes and warns; accelerate imports it in every run."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if gpu else "cpu")


def join(config: Config, *, gpu: bool, world: int, seconds: int) -> None:
    """Start DeepSpeed and its process group; before TrainingArguments and before a model is built.

    `seconds` is how long a collective may wait. Raises PermanentError if DeepSpeed is missing or rejects
    the config.
    """
    if world == 1:
        _be_a_world_of_one()
    try:
        import deepspeed
    except ImportError as error:
        raise PermanentError(
            f"deepspeed: DeepSpeed is not installed ({error}). Install it, or use an image that has it.",
            reason=Reason.NOT_IMPLEMENTED,
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # It calls functions of torch.distributed by deprecated names, in every step.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    # Otherwise it would probe compilers, and compile collectives in shared memory.
    vars(deepspeed.ops)["__compatible_ops__"] = {}
    name_states()
    check(config)
    if not gpu:
        _join_on_cpu(seconds)


def name_states() -> None:
    """Allow the classes in DeepSpeed's own checkpoints; a job's process unpickles nothing else."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address
    from torch.serialization import add_safe_globals

    add_safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address])


def _be_a_world_of_one() -> None:
    """Set the environment that torchrun would set, for a program started without it."""
    import socket

    if "LOCAL_RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)


def _join_on_cpu(seconds: int) -> None:
    """Join the process group on a CPU, for which accelerate accepts a backend but chooses none."""
    from datetime import timedelta

    from accelerate import PartialState

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        PartialState(backend="gloo", timeout=timedelta(seconds=seconds))
    finally:
        del os.environ["ACCELERATE_USE_DEEPSPEED"]


def check(config: Config) -> None:
    """Check the config with DeepSpeed's own parser. Raises PermanentError with its first error."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    alone = {key: value for key, value in copy.deepcopy(config).items() if key != "train_batch_size"}
    try:
        DeepSpeedConfig(alone)
    except (ValueError, TypeError, AssertionError, KeyError, AttributeError, DeepSpeedConfigError) as error:
        raise PermanentError(
            f"deepspeed.config: DeepSpeed rejects it: {_complaint(error)}.", reason=Reason.INVALID_MANIFEST
        ) from error
    if config["fp16"]["enabled"] and not get_accelerator().is_fp16_supported():
        raise PermanentError(
            "This machine cannot compute in float16; set model.dtype.", reason=Reason.INVALID_MANIFEST
        )


def _complaint(error: Exception) -> str:
    """Return the error and the field that it concerns, with pydantic's long message in one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")


@contextmanager
def one_reads() -> Iterator[None]:
    """Make only rank 0 read the weights while a model is loaded at stage 3; the others receive their shares.

    transformers sends them anyway, but makes every rank assemble the experts of a mixture in its own main
    memory (57 GB per rank with Qwen3-30B-A3B). Vectors are read by all ranks: buffers are not sent.
    """
    import torch.distributed as dist
    from safetensors import safe_open
    from transformers import modeling_utils
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    read = modeling_utils.load_state_dict

    def shapes(path: str, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        known: dict[str, torch.Tensor] = read(path, map_location="meta")
        small = [name for name, tensor in known.items() if tensor.ndim < 2 or tensor.numel() <= _SMALL]
        with safe_open(path, framework="pt") as file:
            return known | {name: file.get_tensor(name) for name in small}

    if not is_deepspeed_zero3_enabled() or dist.get_rank() == 0:
        yield
        return
    modeling_utils.load_state_dict = shapes
    try:
        yield
    finally:
        modeling_utils.load_state_dict = read


def backward(engine: Any, loss: torch.Tensor, *, last: bool) -> None:
    """Run the backward pass of one micro-batch of a step.

    Gradients are summed over micro-batches and averaged over ranks, as without DeepSpeed: stages 0 and 1
    average once, with the last; 2 and 3 with each, since there a rank keeps only its share.
    """
    engine.set_gradient_accumulation_boundary(last)
    engine.backward(loss, scale_wrt_gas=False)


def step(engine: Any) -> float:
    """Clip the gradient and run the optimizer's step. Returns the gradient norm before clipping.

    It is nan if it is not finite, in which case DeepSpeed with float16 skips the step.
    """
    import torch

    from tunesmith.training.gradient import clip_gradient

    # Stage 0 in float32, which does not report the norm, and clips by a norm summed in float32.
    plain = isinstance(engine.optimizer, torch.optim.Optimizer)
    norm = clip_gradient(engine.module.parameters(), engine.gradient_clipping()) if plain else None
    engine.step()
    norm = norm if plain else engine.get_global_grad_norm()
    # DeepSpeed returns -1 for inf and nan.
    return math.nan if norm is None or norm < 0 else float(norm)


def whole_weights(trainer: Any) -> dict[str, torch.Tensor] | None:
    """Return all weights of the model, or of its adapters, on rank 0; None on others. Every rank takes part.

    None on all ranks if the weights are not sharded: they are in the model.
    """
    from deepspeed.runtime.zero import GatheredParameters
    from peft import PeftModel

    engine = trainer.model_wrapped
    if engine.zero_optimization_stage() != 3:
        return None
    if not isinstance(trainer.model, PeftModel):
        state: dict[str, torch.Tensor] | None = trainer.accelerator.get_state_dict(engine)
        return state
    named = trainer.model.named_parameters()
    kept = {name: p for name, p in named if p.requires_grad or "lora_" in name}  # also earlier, frozen ones
    with GatheredParameters(list(kept.values())):
        whole = {name: parameter.detach().cpu().clone() for name, parameter in kept.items()}
    return whole if engine.global_rank == 0 else None
