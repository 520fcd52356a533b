"""All of Tunesmith's errors.

::

    TunesmithError                a message for a person, and a reason from names.Reason
    ├── PermanentError            someone must change something; a retry cannot help
    │   ├── UsageError            a command was called with invalid arguments
    │   ├── ManifestError         a manifest is invalid; has one Problem per mistake
    │   ├── DataError             the input data cannot be used (bad records, nothing left, …)
    │   ├── OutputConflictError   the output location has something else in it
    │   ├── ModelError            the model or its tokenizer cannot be used for this job
    │   ├── LabelError            the labels of a sample are not what training needs
    │   ├── DivergedError         the loss is no longer a number, or worse than a uniform prediction
    │   ├── EndpointError         an endpoint refuses every request
    │   ├── QuotaError            an endpoint's quota is used up
    │   ├── BudgetError           a job's budget is spent
    │   ├── TooManyFailedError    more dialogues or prompts failed than maxFailedRatio allows
    │   └── StoragePermanentError bucket or object missing, access denied
    └── TemporaryError            a retry may succeed
        ├── StorageTemporaryError endpoint unreachable, server errors, reset connections
        ├── CorruptObjectError    an object is shorter than, or differs from, what was published
        ├── StuckError            the processes of a run are deadlocked
        ├── MemoryShortError      memory ran out; the next attempt takes less
        ├── GpuMissingError       the pod was given GPUs, and torch finds none
        └── StoppedError          the program stopped on request (SIGTERM)

A message is one or more complete sentences: what is wrong, where (file, field, record), what to do.
It never contains a secret, nor a control character of a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.names import Reason
from tunesmith.text import visible


class TunesmithError(Exception):
    """Base of all. `reason` comes from the closed list in `names.Reason`."""

    default_reason = Reason.INTERNAL_ERROR

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        self.message = visible(message)
        super().__init__(self.message)
        self.reason = reason or self.default_reason


class PermanentError(TunesmithError):
    """A retry cannot help: the user or an administrator must change something."""


class TemporaryError(TunesmithError):
    """A retry may succeed."""


class UsageError(PermanentError):
    """A command was called with invalid arguments."""

    default_reason = Reason.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a manifest.

    `source` is the file's name, `document` its 1-based position in the file (0: the whole file),
    `subject` is "Kind name" if known, `path` a dotted field path ("" for the object itself).
    """

    source: str
    document: int
    subject: str
    path: str
    message: str

    def __str__(self) -> str:
        place = self.source
        if self.document:
            place += f", document {self.document}"
        if self.subject:
            place += f" ({self.subject})"
        said = f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"
        return visible(said).replace("\n", "␊")


class ManifestError(PermanentError):
    """One or more manifests are invalid."""

    default_reason = Reason.INVALID_MANIFEST

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = list(problems)


class DataError(PermanentError):
    """The input data cannot be used; the message names file, line or index, and why."""

    default_reason = Reason.BAD_DATA


class OutputConflictError(PermanentError):
    """The output location has the result of something else in it."""

    default_reason = Reason.OUTPUT_CONFLICT


class ModelError(PermanentError):
    """The model or its tokenizer cannot be used for this job."""

    default_reason = Reason.BAD_MODEL


class LabelError(PermanentError):
    """The labels of a sample are not what training needs; names the record."""

    default_reason = Reason.BAD_LABELS


class DivergedError(PermanentError):
    """The loss is no longer a finite number, or stays above that of a uniform prediction."""

    default_reason = Reason.DIVERGED


class EndpointError(PermanentError):
    """An endpoint refuses every request: key, model, address or a setting is invalid."""

    default_reason = Reason.ENDPOINT_REFUSED


class QuotaError(PermanentError):
    """The account's quota is used up for hours, or there is none."""

    default_reason = Reason.QUOTA_SPENT


class BudgetError(PermanentError):
    """The next call might cost more than what is left of the budget."""

    default_reason = Reason.BUDGET_SPENT


class TooManyFailedError(PermanentError):
    """More dialogues or prompts have failed than `maxFailedRatio` allows; the finished ones are kept."""

    default_reason = Reason.TOO_MANY_FAILED


class StoragePermanentError(PermanentError):
    """Bucket or object missing, or access denied."""

    default_reason = Reason.STORAGE_REFUSED


class StorageTemporaryError(TemporaryError):
    """The storage could not be reached or failed repeatedly."""

    default_reason = Reason.STORAGE_UNAVAILABLE


class CorruptObjectError(TemporaryError):
    """An object is shorter than, or differs from, what was published."""

    default_reason = Reason.CORRUPT_OBJECT


class StuckError(TemporaryError):
    """No progress for too long; names the processes that others wait for."""

    default_reason = Reason.STUCK


class MemoryShortError(TemporaryError):
    """Memory ran out in a part of a job whose next attempt takes less of it."""

    default_reason = Reason.OUT_OF_MEMORY


class GpuMissingError(TemporaryError):
    """The pod was given GPUs, and torch finds none; another node may have working ones."""

    default_reason = Reason.GPU_MISSING


class StoppedError(TemporaryError):
    """The program stopped cleanly on request."""

    default_reason = Reason.STOPPED


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that caused the others; cancelled tasks have none."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
