"""The status of a job: what the operator writes and `kubectl get` shows, strict and bounded.

The writer must respect the maximum lengths (`MAX_MESSAGE`); the API server rejects longer values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.api.base import Model
from tunesmith.api.scalars import NotNegative, ShortText

MAX_MESSAGE = 4096
MAX_DISRUPTIONS = 11
MAX_PROCESS_COUNTS = 16
MAX_OUT_OF_MEMORY = 32
_Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
_Address = Annotated[str, Field(max_length=2048)]
_Amount = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]

PhaseText = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]
ConditionType = Literal[
    "Accepted",
    "Running",
    "Degraded",
    "ProgressUnreachable",
    "Succeeded",
    "Complete",
    "Failed",
    "Suspended",
    "Ready",
    "Stalled",
]
NOT_OBSERVED = -1
"""The `observedGeneration` of a job that no operator has seen yet."""


class Condition(Model):
    """One aspect of the job's state, in the shape all of Kubernetes uses."""

    type: ConditionType
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is true."""
    observed_generation: NotNegative | None = None
    """Generation of the job that the condition is about."""
    last_transition_time: _Time
    """When status last changed."""
    reason: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")
    ]
    """Reason, as one word for programs."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE)]
    """Explanation for people."""


class ModelAccuracy(Model):
    """How one model did in an evaluation."""

    name: ShortText
    """Short name of the model."""
    accuracy: _Share | None = None
    """Share of its replies that were accepted."""


class EvaluationStatus(Model):
    """How the models did in one evaluation."""

    name: ShortText
    """Name of the evaluation."""
    base: _Share | None = None
    """Share of the base model's replies that were accepted."""
    tuned: _Share | None = None
    """Share of the tuned model's replies that were accepted."""
    models: Annotated[list[ModelAccuracy], Field(max_length=16)] | None = None
    """All models, if there are others than base and tuned."""


class FitStatus(Model):
    """What a job takes of memory; its steps, losses and replies do not depend on it."""

    tokens_per_device: NotNegative | None = None
    """Tokens of a micro-batch at most; 1: one sample at a time."""
    gradient_checkpointing: bool | None = None
    """Whether activations are computed again in the backward pass."""
    offload: Literal["none", "optimizer", "all"] | None = None
    """What DeepSpeed keeps in main memory."""
    rows: NotNegative | None = None
    """Replies that an engine samples at once at most."""


class ExportStatus(Model):
    """How near one form of the tuned model is to it."""

    name: ShortText
    """The form: merged, or gguf with its quantisation."""
    equal_tokens: _Share | None = None
    """Share of tokens of the tuned model's replies that this form would write too."""


class ProgressStatus(Model):
    """How far the job is; which fields are set depends on its kind."""

    text: ShortText | None = None
    """Done and total, such as 1200/4000."""
    eta: ShortText | None = None
    """Time left, such as 1h5m."""
    step: NotNegative | None = None
    """Optimizer steps, prompts or dialogues done."""
    total: NotNegative | None = None
    """Total of these."""
    epoch: _Amount | None = None
    """Epochs done."""
    loss: float | None = None
    """Last training loss."""
    tokens_per_second: _Amount | None = None
    """Tokens per second over all devices."""
    seconds_left: _Amount | None = None
    """Expected time left, in seconds."""
    prompts: NotNegative | None = None
    """Prompts sampled."""
    accepted: NotNegative | None = None
    """Replies accepted."""
    acceptance_rate: _Share | None = None
    """Accepted replies of all replies."""
    dialogues: NotNegative | None = None
    """Dialogues finished."""
    spent_usd: _Amount | None = None
    """USD that calls have cost."""
    lost_in_flight_usd: _Amount | None = None
    """USD at most, on top of spentUsd, for calls whose outcome was lost when a process was killed."""
    estimate: ShortText | None = None
    """Estimate of what training needs: memory of a GPU, steps, time; before the weights are loaded."""
    engine_restarts: NotNegative | None = None
    """Restarts of engines that hung or exited."""
    fit: FitStatus | None = None
    """What the job takes of memory, if it ran out before."""
    evaluations: Annotated[list[EvaluationStatus], Field(max_length=16)] | None = None
    """Accuracy of each model, once evaluated."""
    exports: Annotated[list[ExportStatus], Field(max_length=16)] | None = None
    """Forms in which the tuned model was exported."""


class OutputsStatus(Model):
    """The job's published output."""

    uri: _Address
    """Folder of the whole output."""
    manifest_digest: Annotated[str, Field(max_length=128)] | None = None
    """SHA-256 of manifest.json, which lists every file with size and digest."""
    model: _Address | None = None
    """Folder of the tuned model."""
    report: _Address | None = None
    """The report."""


class DisruptionStatus(Model):
    """An attempt that ended through no fault of the job."""

    launch: NotNegative
    """Number of the launch."""
    time: _Time
    """When the next attempt was launched; until then, when the disruption was observed."""


class ProcessCount(Model):
    """How many processes an attempt has, and those that follow it up to the next count."""

    launch: NotNegative
    """Number of the launch."""
    processes: NotNegative
    """Processes in all of its pods together."""


class JobStatus(Model):
    """The state that the operator observed."""

    phase: PhaseText | None = None
    """Phase of the job's life cycle; a terminal phase is final."""
    reason: ShortText | None = None
    """Reason for the phase, as one word for programs."""
    message: Annotated[str, Field(max_length=MAX_MESSAGE)] | None = None
    """Explanation of the phase for people."""
    observed_generation: Annotated[int, Field(ge=NOT_OBSERVED, le=2**31 - 1)] | None = None
    """Generation of the job that this status is about; -1 until the operator has seen the job."""
    attempts: NotNegative | None = None
    """Attempts that count; suspension, preemption and lack of memory do not."""
    launches: NotNegative | None = None
    """PyTorchJobs or TrainJobs created, whether they count as attempts or not."""
    backend: Literal["PyTorchJob", "TrainJob"] | None = None
    """Kind of the object that the last launch created."""
    processes: Annotated[list[ProcessCount], Field(max_length=MAX_PROCESS_COUNTS)] | None = None
    """With how many processes the launches run: the first, and each that has another number than before."""
    disruptions: Annotated[list[DisruptionStatus], Field(max_length=MAX_DISRUPTIONS)] | None = None
    """The last attempts that were ended from outside and do not count; at most 10 per hour."""
    out_of_memory: Annotated[list[NotNegative], Field(max_length=MAX_OUT_OF_MEMORY)] | None = None
    """Launches that ended since memory ran out, which do not count as attempts; each next one takes less."""
    start_time: _Time | None = None
    """When the first attempt started."""
    next_attempt_time: _Time | None = None
    """When the next attempt starts, after one that failed or was disrupted."""
    completion_time: _Time | None = None
    """When the job succeeded or failed for good."""
    failed_pod: ShortText | None = None
    """Pod that ended first in the last failed attempt."""
    progress: ProgressStatus | None = None
    """How far the job is."""
    outputs: OutputsStatus | None = None
    """The job's published output."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = Field(default=[])
    """Aspects of the job's state, one of each type."""
