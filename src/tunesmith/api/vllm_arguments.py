"""The engine arguments that `engine.vllm.extra` may hold, by vLLM's own names.

An allow-list: each opens no address or file, imports nothing, starts no processes beyond those the job
expects, and leaves what determines a reply to the fields of the manifest. All other arguments are rejected.
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
"""Where arguments that are not allowed here are set instead."""


class VllmArguments(Model):
    """Engine arguments by vLLM's names; only those listed here."""

    model_config = ConfigDict(alias_generator=lambda name: name)

    async_scheduling: bool | None = None
    """Schedule the next step while one is computed."""
    attention_backend: Word | None = None
    """Attention kernels."""
    block_size: Positive | None = None
    """Tokens per block of the KV cache."""
    cpu_offload_gb: _Gigabytes | None = None
    """GiB of weights offloaded to main memory, per GPU."""
    cudagraph_capture_sizes: Annotated[list[Positive], Field(max_length=256)] | None = None
    """Batch sizes for which CUDA graphs are captured."""
    disable_cascade_attn: bool | None = None
    """Turn off cascade attention, which computes a shared prefix once."""
    disable_custom_all_reduce: bool | None = None
    """Use NCCL's all-reduce."""
    disable_hybrid_kv_cache_manager: bool | None = None
    """Use one KV cache layout for all layers."""
    disable_sliding_window: bool | None = None
    """Limit the context to the sliding window instead."""
    enable_chunked_prefill: bool | None = None
    """Prefill long prompts in chunks, batched with decoding."""
    enable_expert_parallel: bool | None = None
    """Distribute experts over an engine's GPUs, instead of sharding each."""
    enable_flashinfer_autotune: bool | None = None
    """Benchmark FlashInfer's kernels at the start, and use the fastest."""
    enable_prefix_caching: bool | None = None
    """Reuse the KV cache of prefixes for later prompts."""
    enforce_eager: bool | None = None
    """Turn off CUDA graphs and compilation."""
    fully_sharded_loras: bool | None = None
    """Shard an adapter over the GPUs of an engine."""
    kv_cache_dtype: Word | None = None
    """Type of the KV cache, such as fp8."""
    kv_cache_memory_bytes: _Bytes | None = None
    """Bytes of KV cache per GPU; gpuMemoryUtilization is then ignored."""
    kv_offloading_size: _Gigabytes | None = None
    """GiB of main memory for KV cache that no longer fits on the GPUs."""
    language_model_only: bool | None = None
    """Skip the parts of a model that read images, audio and video."""
    linear_backend: Word | None = None
    """Kernels for linear layers."""
    long_prefill_token_threshold: NotNegative | None = None
    """Tokens above which a prompt counts as long."""
    lora_dtype: Word | None = None
    """Compute type of an adapter."""
    mamba_block_size: Positive | None = None
    """Tokens per block of cached states."""
    mamba_cache_dtype: Word | None = None
    """Type of cached states."""
    mamba_cache_mode: Word | None = None
    """Whether states of prefixes are cached."""
    mamba_ssm_cache_dtype: Word | None = None
    """Type of cached states of state space layers."""
    max_cpu_loras: Positive | None = None
    """Adapters kept in main memory."""
    max_cudagraph_capture_size: Positive | None = None
    """The largest batch for which a CUDA graph is captured."""
    max_num_batched_tokens: Positive | None = None
    """Maximum tokens computed in one step."""
    max_num_scheduled_tokens: Positive | None = None
    """Maximum tokens scheduled in one step."""
    max_num_seqs: Positive | None = None
    """Maximum replies sampled at once."""
    max_parallel_loading_workers: Positive | None = None
    """Processes that load weights in parallel."""
    model_impl: Literal["auto", "vllm", "transformers"] | None = None
    """Which implementation of the model is used."""
    moe_backend: Word | None = None
    """Kernels for MoE layers."""
    num_gpu_blocks_override: Positive | None = None
    """Number of KV cache blocks, instead of as many as fit."""
    optimization_level: Annotated[int, Field(ge=0, le=3)] | None = None
    """How much is compiled."""
    performance_mode: Word | None = None
    """What vLLM's own defaults optimise for."""
    prefix_caching_hash_algo: Word | None = None
    """Hash that identifies cached prefixes."""
    quantization: Word | None = None
    """How weights are quantised, such as fp8."""
    safetensors_load_strategy: Literal["lazy", "eager", "prefetch"] | None = None
    """How weights are read."""
    scheduling_policy: Literal["fcfs", "priority"] | None = None
    """Order in which requests are scheduled."""
    skip_mm_profiling: bool | None = None
    """Skip profiling memory for images, audio and video."""
    spec_method: Literal["ngram", "mtp"] | None = None
    """Speculative decoding, by n-grams or by the model's own layers for it."""
    spec_tokens: Annotated[int, Field(ge=1, le=64)] | None = None
    """Tokens proposed at a time."""
    stream_interval: Positive | None = None
    """Tokens between outputs of a reply within vLLM."""
    use_fp64_gumbel: bool | None = None
    """Sample with 64-bit numbers."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_others(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        others = [str(name) for name in data if name not in cls.model_fields]
        if others:
            broken = [(name, _why_not(name, list(cls.model_fields))) for name in others[:_MOST_NAMED]]
            if len(others) > _MOST_NAMED:
                broken.append(("", f"contains {len(others) - _MOST_NAMED:,} more names that cannot be set"))
            broken.append(("", f"may contain {', '.join(cls.model_fields)}"))
            raise PydanticCustomError("rules", "{text}", {"broken": broken, "text": broken[0][1]})
        return data


def _why_not(name: str, known: list[str]) -> str:
    if name in _ELSEWHERE:
        return f"cannot be set here; it is set by {_ELSEWHERE[name]}"
    return f"cannot be set here{near(snake(name[:80]), known, 0.8)}"
