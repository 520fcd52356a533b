"""Sampling, engines and verifiers: shared by RejectionSampleJob, evaluation and previews."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.ruled import Ruled
from tunesmith.api.scalars import (
    DottedFunction,
    IntOrAuto,
    JsonObject,
    Positive,
    RandomSeed,
    ShortText,
    StopTokens,
    Text,
)
from tunesmith.api.vllm_arguments import VllmArguments

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
StuckSeconds = Annotated[int, Field(ge=1, le=604800)]
NewTokens = Annotated[int, Field(ge=1, le=1048576)]


class SamplingSpec(Model):
    """How replies are sampled."""

    num_samples: Annotated[int, Field(ge=1, le=1024)] = 8
    """Replies per prompt."""
    temperature: Temperature = 0.8
    """0: greedy decoding."""
    top_p: TopP = 0.95
    """Nucleus sampling."""
    top_k: Positive | None = None
    """Only the k most likely tokens; all if absent."""
    max_new_tokens: NewTokens = 2048
    """Maximum tokens of a reply."""
    seed: RandomSeed = 0
    """Seed of the job."""
    stop_tokens: StopTokens = Field(default=[])
    """Strings that end a reply, besides the model's own end of turn."""
    stop_after_accepted: Positive | None = None
    """Stop sampling a prompt after this many accepted replies."""
    deterministic: bool = False
    """A seed per request; slower on GPUs."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "must not be more than numSamples",
            "!has(self.stopAfterAccepted) || "
            "self.stopAfterAccepted <= (has(self.numSamples) ? self.numSamples : 1)",
            lambda m: m.stop_after_accepted is None or m.stop_after_accepted <= m.num_samples,
            "stopAfterAccepted",
        ),
    )


class EvaluationSampling(SamplingSpec):
    """How replies are sampled in an evaluation: one, by greedy decoding."""

    num_samples: Annotated[int, Field(ge=1, le=1024)] = 1
    """Replies per prompt."""
    temperature: Temperature = 0.0
    """0: greedy decoding."""


class VllmEngine(Model):
    """vLLM."""

    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that share one engine."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of a GPU's memory the engine may use."""
    max_model_len: Positive | None = None
    """Maximum tokens of prompt and reply together; the model's maximum if absent."""
    extra: VllmArguments = Field(default_factory=VllmArguments)
    """Additional engine arguments, by vLLM's names."""
    stuck_seconds: StuckSeconds = 600
    """Seconds without a new token or reply after which the engine is restarted; off while it starts."""


class TransformersEngine(Model):
    """transformers' generate, for machines without vLLM."""

    batch_size: IntOrAuto = "auto"
    """Maximum replies sampled at once; auto: chosen by memory."""
    stuck_seconds: StuckSeconds = 600
    """Seconds without a new token or reply after which the engine is restarted; off while it starts."""


class EngineSpec(Model):
    """What generates."""

    vllm: VllmEngine | None = None
    """vLLM."""
    transformers: TransformersEngine | None = None
    """transformers' generate."""

    rules: ClassVar[tuple[Rule, ...]] = (one_of("vllm", "transformers"),)


class LegalJudgementVerifier(Model):
    """Charge and prison term are both correct."""


class ExactMatchVerifier(Model):
    """The reply equals a field of the record."""

    field: ShortText
    """Field of the record."""


class RegexVerifier(Model):
    """The reply, or the pattern's first group, matches."""

    pattern: Annotated[str, Field(min_length=1, max_length=4096)]
    """Regular expression; with `field` its first group must equal that field."""
    field: ShortText | None = None
    """Field of the record that the first group must equal."""


class NumericVerifier(Model):
    """The last number of the reply equals a field of the record."""

    field: ShortText
    """Field of the record."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Allowed absolute difference."""


class JsonSchemaVerifier(Model):
    """The reply is JSON that is valid under a schema."""

    json_schema: JsonObject = Field(alias="schema")
    """JSON Schema."""


class PythonVerifier(Model):
    """A Python function of the image."""

    function: Annotated[DottedFunction, Ruled("pythonModules")]
    """package.module:function; takes the record and the reply."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Seconds after which a reply is rejected."""


VERIFIERS = ("legal_judgement", "exact_match", "regex", "numeric", "json_schema", "python")


class VerifierSpec(Model):
    """Which replies are accepted."""

    legal_judgement: LegalJudgementVerifier | None = None
    """Charge and prison term are both correct."""
    exact_match: ExactMatchVerifier | None = None
    """The reply equals a field of the record."""
    regex: RegexVerifier | None = None
    """The reply matches a pattern."""
    numeric: NumericVerifier | None = None
    """The last number equals a field of the record."""
    json_schema: JsonSchemaVerifier | None = None
    """The reply is JSON that is valid under a schema."""
    python: PythonVerifier | None = None
    """A Python function of the image."""

    rules: ClassVar[tuple[Rule, ...]] = (one_of(*VERIFIERS),)


VERIFIER_RULE = Rule(
    "is required, since only legalJudgement prompts have their own",
    "has(self.verifier) || has(self.prompts.legalJudgement)",
    lambda m: m.verifier is not None or m.prompts.legal_judgement is not None,
    "verifier",
)


class PreviewGeneration(Model):
    """How a preview is generated."""

    max_new_tokens: NewTokens = 512
    """Maximum tokens of the reply."""
    temperature: Temperature = 0.0
    """0: greedy decoding."""
    top_p: TopP = 1.0
    """Nucleus sampling."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Above 1, repeated tokens are less likely."""
    stop_tokens: StopTokens = Field(default=[])
    """Strings that end the reply, besides the model's own end of turn."""


class ChatMessage(Model):
    """One message."""

    role: Literal["system", "user", "assistant"]
    """Role of the speaker."""
    content: Text
    """Text of the message."""


class PreviewSpec(Model):
    """A prompt answered before and after training, side by side in the report."""

    name: ShortText
    """Name of the preview."""
    system: Text | None = None
    """System message."""
    system_suffix: Text | None = None
    """Appended to the system message."""
    user: Text | None = None
    """The user's message."""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=64)] | None = None
    """A whole conversation that ends with the user, instead of user."""
    generation: PreviewGeneration = Field(default_factory=PreviewGeneration)
    """How the reply is generated."""

    rules: ClassVar[tuple[Rule, ...]] = (
        one_of("user", "messages"),
        Rule(
            "must end with a user message",
            "!has(self.messages) || self.messages.size() == 0 || "
            "self.messages[self.messages.size() - 1].role == 'user'",
            lambda m: not m.messages or m.messages[-1].role == "user",
            "messages",
        ),
        Rule(
            "cannot be set together with a system message in messages",
            "!(has(self.system) && has(self.messages) && self.messages.exists(m, m.role == 'system'))",
            lambda m: m.system is None or not any(x.role == "system" for x in m.messages or []),
            "system",
        ),
    )
