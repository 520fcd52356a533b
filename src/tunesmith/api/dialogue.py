"""DialogueGenJob: grow multi-turn dialogues from single turns."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import RecordsUri, StorageUri, Url
from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.common import GenerationRunSpec, JobSpec, ModelSource, SecretKeyRef
from tunesmith.api.generation import Temperature, TransformersEngine, VllmEngine
from tunesmith.api.output_apart import output_apart
from tunesmith.api.prices import PriceSpec, listed
from tunesmith.api.records import RecordsSource, seed_column_rule
from tunesmith.api.resources import ResourcesSpec
from tunesmith.api.scalars import (
    Encoding,
    JsonObject,
    NotNegative,
    Positive,
    RandomSeed,
    Ratio,
    ShortName,
    ShortText,
    object_without,
)


class SeedsSpec(RecordsSource):
    """Single turns or histories the dialogues grow from."""

    uri: RecordsUri
    """File, folder, or data set on the hub, of {question, answer, correction}, {rounds} histories, Alpaca or
    chat records."""
    encoding: Encoding = "utf-8"
    """What text files that are not UTF-8 are in; gb18030 also reads GBK and GB2312."""
    limit: Positive | None = None
    """Records read at most."""
    shuffle_seed: RandomSeed | None = None
    """Seed of the order; the file's order if absent."""
    max_bad_records: NotNegative = 0
    """Bad records that do not fail the job."""

    rules: ClassVar[tuple[Rule, ...]] = (seed_column_rule(), *RecordsSource.shared_rules)


class ContextSpec(Model):
    """How much of a dialogue is sent to the models."""

    max_messages: Annotated[int, Field(ge=1, le=1000)] = 16
    """Messages at most; the newest are kept, and the system message does not count."""


# The request fields that Tunesmith sets, and their types in OpenAI's API.
SET_BY_TUNESMITH = {
    "model": "string",
    "messages": "array",
    "stream": "boolean",
    "n": "integer",
    "best_of": "integer",
    "max_tokens": "integer",
    "max_completion_tokens": "integer",
    "temperature": "number",
}


class BatchSpec(Model):
    """The server's batch API: cheaper, and answered within a day."""

    max_wait_seconds: Annotated[int, Field(ge=60, le=2592000)] = 86400
    """Seconds after which a batch is cancelled and its unanswered requests are sent again."""
    discount: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Price of a token in a batch, as a share of the regular price."""


class OpenAIEndpoint(Model):
    """A server with OpenAI's chat API."""

    base_url: Url
    """Base address, up to /v1 or the like."""
    model: ShortText
    """Name of the model on the server."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """The server's name for maxTokens; auto: max_tokens, until the server rejects it and names the other."""
    send_temperature: bool = True
    """False for models that reject a temperature: requests then have none."""
    extra_body: Annotated[JsonObject, object_without(SET_BY_TUNESMITH)] = Field(default={})
    """Additional fields of each request, such as reasoning_effort."""
    batch: BatchSpec | None = None
    """Send requests through the server's batch API, one batch per round and role; {} takes the defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"must not contain {', '.join(SET_BY_TUNESMITH)}, which Tunesmith sets from other fields",
            "!has(self.extraBody) || !("
            + " || ".join(f"has(self.extraBody.{name})" for name in SET_BY_TUNESMITH)
            + ")",
            lambda m: not SET_BY_TUNESMITH.keys() & m.extra_body.keys(),
            "extraBody",
        ),
    )


class VllmEndpoint(VllmEngine):
    """A vLLM engine in the pod."""

    model: ModelSource
    """The model."""


class TransformersEndpoint(TransformersEngine):
    """transformers' generate in the pod."""

    model: ModelSource
    """The model."""


class LimitsSpec(Model):
    """Limits on the requests to an endpoint."""

    max_parallel_requests: Annotated[int, Field(ge=1, le=10000)] = 16
    """Concurrent requests."""
    requests_per_minute: Positive | None = None
    """Requests per minute."""
    tokens_per_minute: Positive | None = None
    """Tokens per minute, prompt and reply together."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 120
    """Seconds until a request times out."""
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 6
    """Retries of a request, those after empty replies included."""


class EndpointSpec(Model):
    """A model that generates replies."""

    openai: OpenAIEndpoint | None = None
    """A server with OpenAI's chat API."""
    vllm: VllmEndpoint | None = None
    """A vLLM engine in the pod."""
    transformers: TransformersEndpoint | None = None
    """transformers' generate in the pod."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """Limits on the requests to the endpoint."""
    price: PriceSpec | None = None
    """Price of tokens; if absent, that of the model in genai-prices."""

    rules: ClassVar[tuple[Rule, ...]] = (one_of("openai", "vllm", "transformers"),)


class RoleSpec(Model):
    """Who plays a role, and how."""

    endpoint: ShortName
    """Name of an endpoint."""
    temperature: Temperature = 0.7
    """0: greedy decoding."""
    max_tokens: Annotated[int, Field(ge=1, le=1048576)] = 512
    """Maximum tokens of a message."""
    prompt_uri: StorageUri | None = None
    """A file with the role's prompt, instead of Tunesmith's own."""


class RolesSpec(Model):
    """The three roles."""

    question: RoleSpec
    """Asks the follow-up question."""
    answer: RoleSpec
    """Answers from the history."""
    correction: RoleSpec
    """Corrects the answer."""


class BudgetSpec(Model):
    """A limit on spending."""

    max_usd: Annotated[float, Field(gt=0)]
    """Limit in USD, never exceeded."""


class DialogueResources(ResourcesSpec):
    """Resources of the pod; a DialogueGenJob is one pod."""

    nodes: Annotated[int, Field(ge=1, le=1)] = 1
    """Always 1."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of the pod."""


def _roles(m: Any) -> tuple[RoleSpec, ...]:
    return (m.roles.question, m.roles.answer, m.roles.correction)


def _role_rule(role: str) -> Rule:
    return Rule(
        "must be the name of an entry of endpoints",
        f"self.roles.{role}.endpoint in self.endpoints",
        lambda m: getattr(m.roles, role).endpoint in m.endpoints,
        f"roles.{role}.endpoint",
    )


class DialogueGenSpec(JobSpec):
    """Grow multi-turn dialogues from single turns."""

    seeds: SeedsSpec
    """Single turns or histories the dialogues grow from."""
    rounds: Annotated[int, Field(ge=1, le=100)]
    """Total rounds of each dialogue, those of its seed included; may be raised for an existing output."""
    context: ContextSpec = Field(default_factory=ContextSpec)
    """How much of a dialogue is sent to the models."""
    endpoints: Annotated[dict[ShortName, EndpointSpec], Field(min_length=1, max_length=16)]
    """Models that generate replies, by name."""
    roles: RolesSpec
    """Who plays which role."""
    budget: BudgetSpec | None = None
    """A limit on spending."""
    max_failed_ratio: Ratio = 0.5
    """Share of the dialogues that may fail; if more do, or all, the job fails."""
    dry_run: bool = False
    """Send no requests; show the first ones and the expected cost."""
    resources: DialogueResources = Field(default_factory=DialogueResources)
    """Resources of the pod."""
    run: GenerationRunSpec = Field(default_factory=GenerationRunSpec)
    """Attempts, deadline, suspension, retry of failed dialogues."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "must have names of at most 63 letters, digits, '-', '_' and '.'",
            "self.endpoints.all(e, e.size() <= 63 && "
            "e.matches('^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$'))",
            lambda m: all(len(name) <= 63 for name in m.endpoints),
            "endpoints",
        ),
        _role_rule("question"),
        _role_rule("answer"),
        _role_rule("correction"),
        output_apart("must not contain the seeds, which it would overwrite", "seeds.uri"),
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return the endpoints without a price if a budget needs one."""
        used = {role.endpoint for role in (self.roles.question, self.roles.answer, self.roles.correction)}
        return [
            (
                f"endpoints.{name}.price",
                f"is required with a budget: genai-prices does not list {endpoint.openai.model} at "
                f"{endpoint.openai.base_url}",
            )
            for name, endpoint in self.endpoints.items()
            if self.budget is not None and name in used and endpoint.openai and not endpoint.price
            if listed(endpoint.openai.base_url, endpoint.openai.model) is None
        ]
