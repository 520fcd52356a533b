"""The rows of a RejectionSampleJob's journal: one per planned reply, sampled or not.

The only file that knows a row's key and fields. Does not depend on prompts' texts, engines and files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from tunesmith.data.formats.judgement import UNPARSABLE
from tunesmith.errors import OutputConflictError, TemporaryError
from tunesmith.names import Reason
from tunesmith.sampling.verdict import REASONS, TRUNCATED

STOP, LENGTH = "stop", "length"
# Called off because enough replies to its prompt were accepted.
CANCELLED = "cancelled"
# There is no reply, since the prompt does not fit the model.
NONE = "none"
FINISH_REASONS = (STOP, LENGTH, CANCELLED, NONE)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One planned reply.

    `id` is the prompt's, `sample_index` counts its replies from 0. `finish_reason` is one of FINISH_REASONS
    and `reason` one of verdict.REASONS, or "". `tokens` are those sampled, the end-of-turn token included;
    `began` is when the engine was asked for the reply and `at` when the row was written, in seconds since
    1970 (thousandths count), 0 if nothing was sampled.
    """

    id: str
    sample_index: int
    response: str
    finish_reason: str
    reason: str
    details: Mapping[str, Any]
    tokens: int
    prompt_tokens: int
    at: float = 0
    began: float = 0

    @property
    def accepted(self) -> bool:
        """Return whether the reply is whole and accepted."""
        return self.finish_reason == STOP and not self.reason

    @property
    def drawn(self) -> bool:
        """A reply was sampled, whole or truncated at its token limit."""
        return self.finish_reason in (STOP, LENGTH)

    @property
    def cancelled(self) -> bool:
        """This reply was no longer needed: it is neither accepted nor rejected."""
        return self.finish_reason == CANCELLED

    def to_json(self) -> dict[str, Any]:
        """Return the row as the journal holds it. `details` is the row's own, not a copy."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SampleRow:
        """Return the row of a journal. OutputConflictError for what this version of Tunesmith does not write.

        A blank reply is unparsable though a verifier has accepted it: nothing can be learned from it.
        """
        given = dict(value)
        if not (set(FIELDS) - {"at", "began"} <= given.keys() <= set(FIELDS)):
            raise _foreign(given, f"its fields are {', '.join(map(str, given)) or 'none'}")
        row = cls(**given)
        if flaw := _flaw(row):
            raise _foreign(given, flaw)
        return replace(row, reason=UNPARSABLE) if row.accepted and not row.response.strip() else row


FIELDS = tuple(field.name for field in fields(SampleRow))


def row_key(prompt: str, index: int) -> str:
    """Return the journal's key of a row, unique per (prompt, index) whatever a prompt's id contains."""
    return f"{prompt}/{index}"


def planned_keys(prompts: Iterable[str], num_samples: int) -> Iterator[str]:
    """Yield the keys of all rows of these prompts' ids, in order."""
    for prompt in prompts:
        for index in range(num_samples):
            yield row_key(prompt, index)


def rows_of_prompt(
    get: Callable[[str], Mapping[str, Any] | None], prompt: str, num_samples: int
) -> list[SampleRow]:
    """Return all rows of one prompt in order, out of `get` (key to row, None if there is none).

    TemporaryError if one is missing, OutputConflictError for a row under a key that is not its own.
    """
    rows = []
    for index in range(num_samples):
        key = row_key(prompt, index)
        value = get(key)
        if value is None:
            raise TemporaryError(
                f"The row {key} is missing. Run the job again to generate it.", reason=Reason.NO_RESULT
            )
        row = SampleRow.from_json(value)
        if (row.id, row.sample_index) != (prompt, index):
            raise _foreign(value, f"it is stored under the key {key}")
        rows.append(row)
    return rows


def _flaw(row: SampleRow) -> str:
    """Return what this version never writes."""
    texts = (row.id, row.response, row.finish_reason, row.reason)
    numbers = (row.sample_index, row.tokens, row.prompt_tokens)
    if not all(isinstance(text, str) for text in texts) or not isinstance(row.details, Mapping):
        return "a text or the details are of another type"
    if not all(type(number) is int and number >= 0 for number in numbers):
        return "a number is not a whole number of 0 or more"
    if not all(type(time) in (int, float) and time >= 0 for time in (row.at, row.began)):
        return "a time is not a number of 0 or more"
    if row.finish_reason not in FINISH_REASONS:
        return f"its finish_reason is {row.finish_reason[:40]!r}"
    if row.reason and row.reason not in REASONS:
        return f"its reason is {row.reason[:40]!r}"
    if row.finish_reason == LENGTH and row.reason != TRUNCATED:
        return f"it was truncated, and its reason is {row.reason!r}"
    if row.finish_reason == NONE and not row.reason:
        return "there is no reply, and no reason"
    return ""


def _foreign(value: Mapping[str, Any], flaw: str) -> OutputConflictError:
    name = f"{value.get('id')}/{value.get('sample_index')}"
    return OutputConflictError(
        f"The journal has a row {name[:200]} that this version of Tunesmith did not write: {flaw}. "
        "Choose another output.uri, or set output.onExisting: replace."
    )
