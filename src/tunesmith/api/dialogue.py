"""DialogueGenJob: grow multi-turn dialogues from single turns."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import StorageUri, Url
from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.common import (
    GenerationRunSpec,
    JobSpec,
    ModelSource,
    ResourcesSpec,
    SecretKeyRef,
    output_apart,
)
from tunesmith.api.generation import Temperature, TransformersEngine, VllmEngine
from tunesmith.api.prices import PriceSpec, listed
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


class SeedsSpec(Model):
    """Single turns or histories the dialogues grow from."""

    uri: StorageUri
    """File or folder of {question, answer, correction}, {rounds} histories, Alpaca or chat records."""
    encoding: Encoding = "utf-8"
    """What text files that are not UTF-8 are in; gb18030 also reads GBK and GB2312."""
    limit: Positive | None = None
    """Records read at most."""
    shuffle_seed: RandomSeed | None = None
    """Seed of the order; the file's own if absent."""
    max_bad_records: NotNegative = 0
    """Bad records that do not fail the job."""


class ContextSpec(Model):
    """How much of a dialogue the models see."""

    max_messages: Annotated[int, Field(ge=1, le=1000)] = 16
    """Messages at most, the newest kept; the system message is not counted."""


# The fields of a request that Tunesmith sets, and the type that OpenAI's API gives them.
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
    """The server's batch interface: cheaper, and answered within a day."""

    max_wait_seconds: Annotated[int, Field(ge=60, le=2592000)] = 86400
    """Seconds after which a batch is cancelled and what it lacks is asked for again."""
    discount: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What a token of a batch costs, as a share of the price."""


class OpenAIEndpoint(Model):
    """Anything that speaks OpenAI's chat API."""

    base_url: Url
    """Address up to /v1 or its like."""
    model: ShortText
    """Name of the model there."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """What the server calls maxTokens; auto: max_tokens, until it refuses that and names the other."""
    send_temperature: bool = True
    """False for models that refuse a temperature: the request has none."""
    extra_body: Annotated[JsonObject, object_without(SET_BY_TUNESMITH)] = Field(default={})
    """Further fields of each request, as reasoning_effort."""
    batch: BatchSpec | None = None
    """Ask through the server's batch interface, one batch per round and role; {} takes the defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"must not hold {', '.join(SET_BY_TUNESMITH)}, which Tunesmith sets from fields of their own",
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
    """What an endpoint may be asked."""

    max_parallel_requests: Annotated[int, Field(ge=1, le=10000)] = 16
    """Requests under way at once."""
    requests_per_minute: Positive | None = None
    """Requests a minute."""
    tokens_per_minute: Positive | None = None
    """Tokens a minute, prompt and reply together."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 120
    """Seconds until a request is given up."""
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 6
    """Tries after the first, empty replies included."""


class EndpointSpec(Model):
    """A model that answers."""

    openai: OpenAIEndpoint | None = None
    """Anything that speaks OpenAI's chat API."""
    vllm: VllmEndpoint | None = None
    """A vLLM engine in the pod."""
    transformers: TransformersEndpoint | None = None
    """transformers' generate in the pod."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """What the endpoint may be asked."""
    price: PriceSpec | None = None
    """What tokens cost; if absent, what the table of genai-prices says of the model."""

    rules: ClassVar[tuple[Rule, ...]] = (one_of("openai", "vllm", "transformers"),)


class RoleSpec(Model):
    """Who plays a role, and how."""

    endpoint: ShortName
    """Name of an endpoint."""
    temperature: Temperature = 0.7
    """0 takes the likeliest token each time."""
    max_tokens: Annotated[int, Field(ge=1, le=1048576)] = 512
    """Tokens of a message at most."""
    prompt_uri: StorageUri | None = None
    """A file with the role's prompt, instead of the one that comes with Tunesmith."""


class RolesSpec(Model):
    """The three roles."""

    question: RoleSpec
    """Asks the follow-up."""
    answer: RoleSpec
    """Answers from the history."""
    correction: RoleSpec
    """Corrects the answer."""


class BudgetSpec(Model):
    """A wall for spending."""

    max_usd: Annotated[float, Field(gt=0)]
    """USD that are never exceeded."""


class DialogueResources(ResourcesSpec):
    """What the pod gets; a DialogueGenJob is one pod."""

    nodes: Annotated[int, Field(ge=1, le=1)] = 1
    """Always 1."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of the pod."""


def _roles(m: Any) -> tuple[RoleSpec, ...]:
    return (m.roles.question, m.roles.answer, m.roles.correction)


def _role_rule(role: str) -> Rule:
    return Rule(
        "must be the name of one of endpoints",
        f"self.roles.{role}.endpoint in self.endpoints",
        lambda m: getattr(m.roles, role).endpoint in m.endpoints,
        f"roles.{role}.endpoint",
    )


class DialogueGenSpec(JobSpec):
    """Grow multi-turn dialogues from single turns."""

    seeds: SeedsSpec
    """Single turns or histories the dialogues grow from."""
    rounds: Annotated[int, Field(ge=1, le=100)]
    """Rounds of each dialogue in all, those of its seed included; may grow over an existing output."""
    context: ContextSpec = Field(default_factory=ContextSpec)
    """How much of a dialogue the models see."""
    endpoints: Annotated[dict[ShortName, EndpointSpec], Field(min_length=1, max_length=16)]
    """Models that answer, by name."""
    roles: RolesSpec
    """Who plays which role."""
    budget: BudgetSpec | None = None
    """A wall for spending."""
    max_failed_ratio: Ratio = 0.5
    """Share of the dialogues that may fail; if more do, or all, so does the job."""
    dry_run: bool = False
    """Send nothing; show the first requests and the expected cost."""
    resources: DialogueResources = Field(default_factory=DialogueResources)
    """What the pod gets."""
    run: GenerationRunSpec = Field(default_factory=GenerationRunSpec)
    """Attempts, deadline, suspension, asking again."""

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
        output_apart("must not hold the seeds, which it would overwrite", "seeds.uri"),
    )

    def problems(self) -> list[tuple[str, str]]:
        """Endpoints without a price where a budget needs one."""
        used = {role.endpoint for role in (self.roles.question, self.roles.answer, self.roles.correction)}
        return [
            (
                f"endpoints.{name}.price",
                f"is required with a budget: the table of prices does not know {endpoint.openai.model} at "
                f"{endpoint.openai.base_url}",
            )
            for name, endpoint in self.endpoints.items()
            if self.budget is not None and name in used and endpoint.openai and not endpoint.price
            if listed(endpoint.openai.base_url, endpoint.openai.model) is None
        ]
