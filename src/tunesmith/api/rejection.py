"""RejectionSampleJob: draw replies, keep the right ones."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tunesmith.api.base import Rule
from tunesmith.api.common import JobSpec, ModelSource, output_apart
from tunesmith.api.datasets import PromptsSpec
from tunesmith.api.generation import VERIFIER_RULE, EngineSpec, SamplingSpec, VerifierSpec, VllmEngine
from tunesmith.api.scalars import Ratio


class RejectionSampleSpec(JobSpec):
    """Draw replies and keep the right ones."""

    model: ModelSource
    """The model that replies."""
    prompts: PromptsSpec
    """What it replies to."""
    verifier: VerifierSpec | None = None
    """Which replies are right; the task's own if absent."""
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    """How replies are drawn."""
    engine: EngineSpec = Field(default_factory=lambda: EngineSpec(vllm=VllmEngine()))
    """What generates."""
    max_failed_ratio: Ratio = 0.5
    """Share of the prompts that may be impossible to sample; if more are, or all, the job fails."""

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
            "must not hold the model or the prompts, which it would overwrite",
            "model.uri",
            "model.adapter_uri",
            "prompts.uri",
            "prompts.legal_judgement.articles_uri",
        ),
    )
