"""Every label, environment variable, object name, storage key and reason, in one place.

No logic; other modules never spell such a string themselves.
"""

from __future__ import annotations

from enum import StrEnum

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "tunesmith"


class Kind(StrEnum):
    """The three custom resources."""

    FINE_TUNE = "FineTuneJob"
    REJECTION_SAMPLE = "RejectionSampleJob"
    DIALOGUE_GEN = "DialogueGenJob"


SHORT_NAMES = {Kind.FINE_TUNE: "ftj", Kind.REJECTION_SAMPLE: "rsj", Kind.DIALOGUE_GEN: "dgj"}
PLURALS = {
    Kind.FINE_TUNE: "finetunejobs",
    Kind.REJECTION_SAMPLE: "rejectionsamplejobs",
    Kind.DIALOGUE_GEN: "dialoguegenjobs",
}


class Backend(StrEnum):
    """The kinds of objects that make the pods of an attempt, in the order in which they are preferred."""

    PYTORCH_JOB = "PyTorchJob"
    TRAIN_JOB = "TrainJob"


class Reason(StrEnum):
    """Why something failed or waits. The closed list that status, termination message and CLI share."""

    USAGE = "Usage"
    INVALID_MANIFEST = "InvalidManifest"
    BAD_DATA = "BadData"
    BAD_MODEL = "BadModel"
    BAD_LABELS = "BadLabels"
    OUTPUT_CONFLICT = "OutputConflict"
    SECRET_MISSING = "SecretMissing"
    PACKAGE_MISSING = "PackageMissing"
    DIVERGED = "Diverged"
    HUB_UNAVAILABLE = "HubUnavailable"
    HUB_REFUSED = "HubRefused"
    EXPORT_UNPROVEN = "ExportUnproven"
    STORAGE_REFUSED = "StorageRefused"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    CORRUPT_OBJECT = "CorruptObject"
    STUCK = "Stuck"
    STOPPED = "Stopped"
    OUT_OF_MEMORY = "OutOfMemory"
    DISK_FULL = "DiskFull"
    NOT_IMPLEMENTED = "NotInThisVersion"
    DEPENDENCY_FAILED = "DependencyFailed"
    DEPENDENCY_NOT_FOUND = "DependencyNotFound"
    DEPENDENCY_CYCLE = "DependencyCycle"
    PROCESS_DIED = "ProcessDied"
    INTERNAL_ERROR = "InternalError"
    PREEMPTED = "Preempted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    REFUSED = "Refused"
    SERVICE_ACCOUNT_MISSING = "ServiceAccountMissing"
    BACKEND_MISSING = "BackendMissing"
    RUNTIME_MISSING = "RuntimeMissing"
    RUNTIME_UNFIT = "RuntimeUnfit"
    START_ERROR = "StartError"
    GPU_MISSING = "GpuMissing"
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    NO_RESULT = "NoResult"
    NAME_TAKEN = "NameTaken"
    NOT_ALLOWED = "NotAllowed"
    ENDPOINT_REFUSED = "EndpointRefused"
    QUOTA_SPENT = "QuotaSpent"
    BUDGET_SPENT = "BudgetSpent"
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable"
    TOO_MANY_FAILED = "TooManyFailed"
    ENDPOINT_PAUSED = "EndpointPaused"
    # Why a job is where it is, when nothing is wrong.
    STARTING = "Starting"
    RUNNING = "Running"
    WAITING_FOR_JOB = "WaitingForJob"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    PUBLISHED = "Published"


class Phase(StrEnum):
    """Phase of a job's life cycle."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


# Reasons that the user can fix: `tunesmith run` exits with code 2 for them, 1 for the others.
USER_REASONS = frozenset(
    {
        Reason.USAGE,
        Reason.INVALID_MANIFEST,
        Reason.BAD_DATA,
        Reason.BAD_MODEL,
        Reason.BAD_LABELS,
        Reason.OUTPUT_CONFLICT,
        Reason.SECRET_MISSING,
        Reason.PACKAGE_MISSING,
        Reason.STORAGE_REFUSED,
        Reason.HUB_REFUSED,
        Reason.EXPORT_UNPROVEN,
        Reason.NOT_IMPLEMENTED,
        Reason.ENDPOINT_REFUSED,
        Reason.BUDGET_SPENT,
        Reason.DEPENDENCY_NOT_FOUND,
        Reason.DEPENDENCY_CYCLE,
    }
)

# Keys under output.uri.
MANIFEST_KEY = "manifest.json"
RESULT_KEY = "result.json"
REPORT_KEY = "report.html"
METRICS_KEY = "metrics.jsonl"
FINAL_MODEL = "final_model"
LOGS = "logs"
CHECKPOINT_PREFIX = "checkpoint-"
TRAINED_ADAPTER = "trained"
FINGERPRINT_KEY = "fingerprint.json"
BEFORE_KEY = "before.json"
VALIDATION_LOSSES_KEY = "validation_losses.json"
MEMORY_KEY = "memory.json"
SAMPLES_PREVIEW_KEY = "training_samples_preview.txt"
TRAINING_LOG_KEY = "training_logs/detailed_training_log.txt"
SAMPLED_DATA_KEY = "sampled_data.json"
MESSAGES_KEY = "messages.jsonl"
REJECTED_KEY = "rejected.jsonl"
PREFERENCE_KEY = "preference.jsonl"
SAMPLING_STATS_KEY = "sampling_stats.json"
STATS_KEY = "stats.json"
FAILED_KEY = "failed.jsonl"
DRY_RUN = "dry-run"
DRY_RUN_KEY = "dry_run.json"
JOURNAL = "journal"
EVALUATION = "evaluation"
EVALUATING = "evaluating"
EXPORT = "export"
EXPORTING = "exporting"
MERGED_KEY = f"{EXPORT}/merged"
GGUF_KEY = f"{EXPORT}/gguf"
ADDED_LATER = (f"{EVALUATION}/", f"{EXPORT}/")
"""Prefixes of what a finished output may get later."""
REPORT_DATA_KEY = "report.json"

# The pod's world.
# Our container, whose name the kind of the attempt's object decides.
CONTAINERS = ("pytorch", "node")
RUN_JSON = "run.json"
RUN_JSON_DIR = "/etc/tunesmith"
SCRATCH_DIR = "/scratch"
TERMINATION_LOG = "/dev/termination-log"
PROGRESS_PORT = 8080
LIVE_DATA = "page.json"
ENV_SCRATCH = "TUNESMITH_SCRATCH"
ENV_CACHE = "TUNESMITH_CACHE"
ENV_TERMINATION_LOG = "TUNESMITH_TERMINATION_LOG"
ENV_PROGRESS_PORT = "TUNESMITH_PROGRESS_PORT"
ENV_PROGRESS_HOST = "TUNESMITH_PROGRESS_HOST"
ENV_PAGE_KEY = "TUNESMITH_PAGE_KEY"
ENV_LOG_DIR = "TUNESMITH_LOG_DIR"
ENV_JOB_UID = "TUNESMITH_JOB_UID"
ENV_ATTEMPT = "TUNESMITH_ATTEMPT"
ENV_STUCK_SECONDS = "TUNESMITH_STUCK_SECONDS"
ENV_ENGINES = "TUNESMITH_ENGINES"
ENV_GPUS = "TUNESMITH_GPUS"
ENV_ROWS = "TUNESMITH_ROWS"
ENV_JOURNAL = "TUNESMITH_JOURNAL"
ENV_RULES = "TUNESMITH_RULES"
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
SECRET_ENV_PREFIX = "TUNESMITH_SECRET_"

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_VERSION = "app.kubernetes.io/version"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_JOB = f"{GROUP}/job"
LABEL_KIND = f"{GROUP}/kind"
LABEL_ATTEMPT = f"{GROUP}/attempt"
# On an object that makes pods and on these pods; another one for each object, even of the same name.
LABEL_LAUNCH_ID = f"{GROUP}/launch-id"
# On such an object that the operator has suspended, so that it never resumes what a queue holds back.
ANNOTATION_SUSPENDED = f"{GROUP}/suspended"
# On such an object: what its job's resources and placement were when it was made.
ANNOTATION_RESOURCES = f"{GROUP}/resources"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"


def child_name(kind: Kind, name: str, attempt: int) -> str:
    """Return the name of the object and ConfigMap of one attempt; the short name keeps kinds apart."""
    return f"{name}-{SHORT_NAMES[kind]}-{attempt}"


def checkpoint_key(step: int) -> str:
    """Return `checkpoint-<step>`, relative to the output."""
    return f"{CHECKPOINT_PREFIX}{step}"


def secret_env(name: str, key: str) -> str:
    """Return the environment variable that replaces a Secret's key in `tunesmith run`."""
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in f"{name}_{key}")
    return SECRET_ENV_PREFIX + letters.upper()
