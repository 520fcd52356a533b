"""RejectionSampleJob: sample replies, keep the accepted ones."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tunesmith.api.base import Rule
from tunesmith.api.common import JobSpec, ModelSource
from tunesmith.api.datasets import PromptsSpec
from tunesmith.api.generation import VERIFIER_RULE, EngineSpec, SamplingSpec, VerifierSpec, VllmEngine
from tunesmith.api.output_apart import output_apart
from tunesmith.api.scalars import Ratio


class RejectionSampleSpec(JobSpec):
    """Sample replies and keep the accepted ones."""

    model: ModelSource
    """The model that replies."""
    prompts: PromptsSpec
    """The prompts to sample replies for."""
    verifier: VerifierSpec | None = None
    """Which replies are accepted; the task's own verifier if absent."""
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    """How replies are sampled."""
    engine: EngineSpec = Field(default_factory=lambda: EngineSpec(vllm=VllmEngine()))
    """What generates."""
    max_failed_ratio: Ratio = 0.5
    """Share of the prompts that may fail; if more do, or all, the job fails."""

    rules: ClassVar[tuple[Rule, ...]] = (
        VERIFIER_RULE,
        Rule(
            "must divide resources.gpusPerNode",
            "!has(self.engine.vllm) || self.resources.gpusPerNode == 0 || "
            "self.resources.gpusPerNode % self.engine.vllm.tensorParallelSize == 0",
            lambda m: (
                m.engine.vllm is None or m.resources.gpus_per_node % m.engine.vllm.tensor_parallel_size == 0
            ),
            "engine.vllm.tensorParallelSize",
        ),
        output_apart(
            "must not contain the model or the prompts, which it would overwrite",
            "model.uri",
            "model.adapter_uri",
            "prompts.uri",
            "prompts.legal_judgement.articles_uri",
        ),
    )
