"""RejectionSampleJob: draw replies, keep the right ones."""

from __future__ import annotations

from typing import ClassVar

from tunesmith.api.base import Rule
from tunesmith.api.common import JobSpec, ModelSource, inside, offline_rule
from tunesmith.api.datasets import PromptsSpec
from tunesmith.api.generation import EngineSpec, SamplingSpec, VerifierSpec, VllmEngine


class RejectionSampleSpec(JobSpec):
    """Draw replies and keep the right ones."""

    model: ModelSource
    """The model that replies."""
    prompts: PromptsSpec
    """What it replies to."""
    verifier: VerifierSpec | None = None
    """Which replies are right; the task's own if absent."""
    sampling: SamplingSpec = SamplingSpec()
    """How replies are drawn."""
    engine: EngineSpec = EngineSpec(vllm=VllmEngine())
    """What generates."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "is required, since only legalJudgement prompts bring their own",
            "has(self.verifier) || has(self.prompts.legalJudgement)",
            lambda m: m.verifier is not None or m.prompts.legal_judgement is not None,
            "verifier",
        ),
        Rule(
            "must divide resources.gpusPerNode",
            "!has(self.engine.vllm) || self.resources.gpusPerNode == 0 || "
            "self.resources.gpusPerNode % self.engine.vllm.tensorParallelSize == 0",
            lambda m: (
                m.engine.vllm is None or m.resources.gpus_per_node % m.engine.vllm.tensor_parallel_size == 0
            ),
            "engine.vllm.tensorParallelSize",
        ),
        Rule(
            "must not hold the model or the prompts, which it would overwrite",
            "!((has(self.prompts.uri) && (self.prompts.uri + '/').startsWith(self.output.uri + '/'))"
            " || (has(self.model.uri) && (self.model.uri + '/').startsWith(self.output.uri + '/')))",
            lambda m: not any(inside(uri, m.output.uri) for uri in (m.prompts.uri, m.model.uri)),
            "output.uri",
        ),
        offline_rule("model"),
    )
