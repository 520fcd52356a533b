"""The engine arguments that `engine.vllm.extra` may hold, by vLLM's own names.

An allow-list: each opens no address or file, imports nothing, starts no other processes than the job counts
on, and leaves what a reply is made of to the fields of the manifest. Whatever else vLLM has is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tunesmith.api.base import Model
from tunesmith.api.flags import snake
from tunesmith.api.scalars import NotNegative, Positive, Word
from tunesmith.api.validation_errors import near

_Bytes = Annotated[int, Field(ge=1, le=2**53)]
_Gigabytes = Annotated[float, Field(ge=0)]
_MOST_NAMED = 20

_ELSEWHERE = {
    "model": "model.uri",
    "tokenizer": "model.uri",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "hf_token": "hub.tokenSecretRef",
    "dtype": "model.dtype",
    "seed": "sampling.seed",
    "max_model_len": "engine.vllm.maxModelLen",
    "tensor_parallel_size": "engine.vllm.tensorParallelSize",
    "gpu_memory_utilization": "engine.vllm.gpuMemoryUtilization",
    "enable_lora": "model.adapterUri",
    "max_lora_rank": "model.adapterUri",
    "max_loras": "model.adapterUri",
}
"""Where what may not be here is set instead."""


class VllmArguments(Model):
    """Engine arguments by vLLM's names; those listed here and no others."""

    model_config = ConfigDict(alias_generator=lambda name: name)

    async_scheduling: bool | None = None
    """Schedule the next step while one is computed."""
    attention_backend: Word | None = None
    """Kernels for attention."""
    block_size: Positive | None = None
    """Tokens of a block of cached keys and values."""
    cpu_offload_gb: _Gigabytes | None = None
    """GiB of the weights that are kept in main memory, of each GPU."""
    cudagraph_capture_sizes: Annotated[list[Positive], Field(max_length=256)] | None = None
    """Batch sizes for which CUDA graphs are made."""
    disable_cascade_attn: bool | None = None
    """Do not compute a prefix that prompts share once."""
    disable_custom_all_reduce: bool | None = None
    """Use NCCL's all-reduce."""
    disable_hybrid_kv_cache_manager: bool | None = None
    """Cache keys and values of all layers alike."""
    disable_sliding_window: bool | None = None
    """Cut the context to the sliding window instead."""
    enable_chunked_prefill: bool | None = None
    """Compute long prompts in parts, among the replies of others."""
    enable_expert_parallel: bool | None = None
    """Share experts out over the GPUs of an engine, instead of cutting each."""
    enable_flashinfer_autotune: bool | None = None
    """Try FlashInfer's kernels at the start, and take the fastest."""
    enable_prefix_caching: bool | None = None
    """Keep keys and values of prefixes for later prompts."""
    enforce_eager: bool | None = None
    """Make no CUDA graphs and compile nothing."""
    fully_sharded_loras: bool | None = None
    """Share an adapter out over the GPUs of an engine."""
    kv_cache_dtype: Word | None = None
    """Type of cached keys and values, such as fp8."""
    kv_cache_memory_bytes: _Bytes | None = None
    """Bytes for cached keys and values, of each GPU; gpuMemoryUtilization does not count then."""
    kv_offloading_size: _Gigabytes | None = None
    """GiB of main memory for keys and values that no longer fit on the GPUs."""
    language_model_only: bool | None = None
    """Leave out the parts of a model that read images, audio and video."""
    linear_backend: Word | None = None
    """Kernels for linear layers."""
    long_prefill_token_threshold: NotNegative | None = None
    """Tokens from which a prompt counts as long."""
    lora_dtype: Word | None = None
    """Type that an adapter is computed in."""
    mamba_block_size: Positive | None = None
    """Tokens of a block of cached states."""
    mamba_cache_dtype: Word | None = None
    """Type of cached states."""
    mamba_cache_mode: Word | None = None
    """Whether states of prefixes are kept."""
    mamba_ssm_cache_dtype: Word | None = None
    """Type of cached states of state space layers."""
    max_cpu_loras: Positive | None = None
    """Adapters kept in main memory."""
    max_cudagraph_capture_size: Positive | None = None
    """The largest batch for which a CUDA graph is made."""
    max_num_batched_tokens: Positive | None = None
    """Tokens computed in one step, at most."""
    max_num_scheduled_tokens: Positive | None = None
    """Tokens scheduled in one step, at most."""
    max_num_seqs: Positive | None = None
    """Replies drawn at once, at most."""
    max_parallel_loading_workers: Positive | None = None
    """Processes that load weights at once."""
    model_impl: Literal["auto", "vllm", "transformers"] | None = None
    """Whose implementation of the model is used."""
    moe_backend: Word | None = None
    """Kernels for experts."""
    num_gpu_blocks_override: Positive | None = None
    """Blocks of cached keys and values, instead of as many as fit."""
    optimization_level: Annotated[int, Field(ge=0, le=3)] | None = None
    """How much is compiled."""
    performance_mode: Word | None = None
    """What vLLM's own defaults are chosen for."""
    prefix_caching_hash_algo: Word | None = None
    """How prefixes are told apart."""
    quantization: Word | None = None
    """How weights are quantised, such as fp8."""
    safetensors_load_strategy: Literal["lazy", "eager", "prefetch"] | None = None
    """How weights are read."""
    scheduling_policy: Literal["fcfs", "priority"] | None = None
    """In which order requests are computed."""
    skip_mm_profiling: bool | None = None
    """Reserve no memory for images, audio and video."""
    spec_method: Literal["ngram", "mtp"] | None = None
    """Speculative decoding, by repeated texts or by the model's own layers for it."""
    spec_tokens: Annotated[int, Field(ge=1, le=64)] | None = None
    """Tokens guessed at a time."""
    stream_interval: Positive | None = None
    """Tokens between two outputs of a reply within vLLM."""
    use_fp64_gumbel: bool | None = None
    """Draw with numbers of 64 bits."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        others = [str(name) for name in data if name not in cls.model_fields]
        if others:
            broken = [(name, _why_not(name, list(cls.model_fields))) for name in others[:_MOST_NAMED]]
            if len(others) > _MOST_NAMED:
                broken.append(("", f"holds {len(others) - _MOST_NAMED:,} more names that cannot be set"))
            broken.append(("", f"may hold {', '.join(cls.model_fields)}"))
            raise PydanticCustomError("rules", "{text}", {"broken": broken, "text": broken[0][1]})
        return data


def _why_not(name: str, known: list[str]) -> str:
    if name in _ELSEWHERE:
        return f"cannot be set here; it follows from {_ELSEWHERE[name]}"
    return f"cannot be set here{near(snake(name[:80]), known, 0.8)}"
