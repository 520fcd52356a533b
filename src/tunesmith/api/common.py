"""The parts all three kinds share: references, storage, output, run, hub, tracking."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.api.addresses import ModelUri, OutputUri, StorageUri, Url
from tunesmith.api.base import Model, Rule, one_of
from tunesmith.api.resources import PlacementSpec, ResourcesSpec
from tunesmith.api.ruled import Ruled
from tunesmith.api.scalars import (
    JobName,
    JsonObject,
    NotNegative,
    ObjectName,
    Positive,
    Revision,
    SecretKey,
    ShortName,
    ShortText,
)
from tunesmith.names import Kind

SecretName = Annotated[ObjectName, Ruled("secrets")]


class SecretRef(Model):
    """A Secret of the job's own namespace."""

    name: SecretName
    """Name of the Secret."""


class SecretKeyRef(Model):
    """One key of a Secret of the job's own namespace."""

    name: SecretName
    """Name of the Secret."""
    key: SecretKey
    """Key within the Secret."""


class FromJob(Model):
    """The output of another job of the same namespace; this job waits until that one has succeeded."""

    kind: Literal["FineTuneJob", "RejectionSampleJob", "DialogueGenJob"]
    """Kind of the other job."""
    name: JobName
    """Name of the other job."""
    checkpoint: Positive | None = None
    """Step of a FineTuneJob's checkpoint to use instead of its final model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "belongs to a FineTuneJob; only that has checkpoints",
            "!has(self.checkpoint) || self.kind == 'FineTuneJob'",
            lambda m: m.checkpoint is None or m.kind == Kind.FINE_TUNE,
            "checkpoint",
        ),
    )


class ChatTemplate(Model):
    """The chat template to use in place of the tokenizer's own, or values for that one."""

    name: Literal["chatml", "llama3", "mistral"] | None = None
    """A template that Tunesmith brings, for a base model that has none."""
    uri: StorageUri | None = None
    """s3:// or file:// address of a file with a Jinja template."""
    text: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    """A Jinja template."""
    arguments: JsonObject = Field(default={})
    """Values that the template gets, as enable_thinking: false."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "set at most one of name, uri and text",
            "(has(self.name) ? 1 : 0) + (has(self.uri) ? 1 : 0) + (has(self.text) ? 1 : 0) <= 1",
            lambda m: (m.name, m.uri, m.text).count(None) >= 2,
        ),
    )


class ModelSource(Model):
    """A model to start from: an address, or the result of another FineTuneJob."""

    uri: ModelUri | None = None
    """hf://organisation/name, s3://bucket/folder or file:///folder."""
    from_job: FromJob | None = None
    """A FineTuneJob whose final model is used, or one of its checkpoints."""
    revision: Revision | None = None
    """Branch, tag or commit on the hub."""
    adapter_uri: ModelUri | None = None
    """A LoRA adapter on top of the model."""
    chat_template: ChatTemplate | None = None
    """How conversations are written for the model; absent: by the chat template of its tokenizer."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the weights while computing; auto: the checkpoint's type if the device supports it."""
    attention: Literal["auto", "eager", "sdpa", "flex_attention"] = "auto"
    """Attention implementation; the images have no flash_attention_2."""
    trust_remote_code: Annotated[bool, Ruled("remoteCode", of="uri", absent="of another job")] = False
    """Run the code in the model's repository; an administrator must allow the repository too."""

    rules: ClassVar[tuple[Rule, ...]] = (
        one_of("uri", "from_job"),
        Rule(
            "must be a FineTuneJob; no other kind produces a model",
            "!has(self.fromJob) || self.fromJob.kind == 'FineTuneJob'",
            lambda m: m.from_job is None or m.from_job.kind == Kind.FINE_TUNE,
            "fromJob.kind",
        ),
        Rule(
            "belongs to a model on the hub (hf://)",
            "!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
            lambda m: m.revision is None or (m.uri or "").startswith("hf://"),
            "revision",
        ),
    )


class StorageSpec(Model):
    """How S3 is reached."""

    secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_SESSION_TOKEN;
    absent: the pod's own identity."""
    endpoint_url: Url | None = None
    """Endpoint of an S3 server other than AWS."""
    region: ShortName | None = None
    """Region of the buckets."""
    checksums: Literal["when_required", "when_supported"] = "when_required"
    """When the S3 client sends checksums; some servers reject them."""


class OutputSpec(Model):
    """Where results go."""

    uri: OutputUri
    """s3://bucket/folder or file:///folder."""
    on_existing: Literal["resume", "replace", "fail"] = "resume"
    """What to do if the output already exists."""


class RunSpec(Model):
    """Attempts, deadlines and suspension. These fields may change while the job runs."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts before the job is Failed; suspension, preemption and lack of memory do not count."""
    suspend: bool = False
    """Stop the pods and keep the job; set to false to resume. resources, placement may change meanwhile."""
    active_deadline_seconds: Positive | None = None
    """Seconds the job may take, over all attempts."""
    start_deadline_seconds: Positive | None = None
    """Seconds within which all pods of an attempt must be running, else the job is Failed. Time in a queue
    does not count."""
    ttl_seconds_after_finished: NotNegative | None = None
    """Seconds after which the pods of a finished job are deleted."""


class GenerationRunSpec(RunSpec):
    """Attempts, deadlines and suspension, and whether failed dialogues are retried."""

    retry_failed: bool = False
    """Retry the failed dialogues of an existing output, and nothing else in it."""


class HubSpec(Model):
    """The Hugging Face hub or a mirror."""

    endpoint: Url | None = None
    """Address of a mirror."""
    offline: bool = False
    """Never contact a hub; hf:// models must be in the Hugging Face cache of the pod or of this machine."""
    token_secret_ref: SecretKeyRef | None = None
    """Token for gated models."""


WANDB = "https://api.wandb.ai"
"""Where tracking.wandb reports to without a baseUrl."""


class WandbSpec(Model):
    """Weights & Biases."""

    project: ShortText
    """Project the run belongs to."""
    run_name: ShortText | None = None
    """Name of the run; the job's name if absent."""
    entity: ShortText | None = None
    """Team or user."""
    base_url: Annotated[Url | None, Ruled("endpoints", absent=WANDB)] = None
    """A self-hosted server; if absent, the public one, or that of WANDB_BASE_URL on one machine."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; absent: WANDB_API_KEY or `wandb login` on one machine, else the run is recorded offline."""


class MlflowSpec(Model):
    """MLflow."""

    experiment: ShortText
    """Experiment the run belongs to; created if it does not exist."""
    run_name: ShortText | None = None
    """Name of the run; the job's name if absent."""
    tracking_uri: Annotated[Url | None, Ruled("endpoints")] = None
    """The tracking server; if absent, that of MLFLOW_TRACKING_URI, else the run is recorded under logs/."""
    secret_ref: SecretRef | None = None
    """Secret with MLFLOW_TRACKING_TOKEN, or with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""


class TrackingSpec(Model):
    """Where metrics go besides metrics.jsonl."""

    tensorboard: bool = True
    """Write TensorBoard files under logs/."""
    wandb: WandbSpec | None = None
    """Report to Weights & Biases."""
    mlflow: MlflowSpec | None = None
    """Report to MLflow."""


class JobSpec(Model):
    """The fields all three kinds have."""

    storage: StorageSpec = Field(default_factory=StorageSpec)
    """How S3 is reached."""
    output: OutputSpec
    """Where results go."""
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    """Resources of each pod."""
    placement: PlacementSpec = Field(default_factory=PlacementSpec)
    """Which nodes the pods may run on."""
    runtime: Annotated[ShortName, Ruled("runtimes")] = "default"
    """Name of a training image that the administrator provides."""
    run: RunSpec = Field(default_factory=RunSpec)
    """Attempts, deadline, suspension."""
    hub: HubSpec = Field(default_factory=HubSpec)
    """The Hugging Face hub or a mirror."""
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)
    """Where metrics go besides metrics.jsonl."""
