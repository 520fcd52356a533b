"""The calls of a DialogueGenJob and how they ended: the rows of its journal.

    <call>            how the call ended: a Turn
    <call>/<number>   one try: {endpoint, request, reply}, written before the reply is read
    budget/held/<process>/<call>/<number>   {most}: what the try can cost, written before it is sent
    budget/<number>   a record of the budget
    batch/<endpoint>/<number>   {tag, round, role, at, process, calls, held}: a batch about to be sent
    batch/<endpoint>/<number>/file|id|over   {file}, {id}, {status, again}: how far it came
    retry/<number>    {job}: from here on this job asks again for calls that have failed, as <call>~<number>

where a call is the hash of fingerprint, seed, round and role. The only file that knows keys and fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any, Protocol

from tunesmith.dialogue.flushes import Flushes
from tunesmith.dialogue.state import Role
from tunesmith.errors import OutputConflictError, TunesmithError
from tunesmith.tokens.conversation import ToolCall

EMPTY, BLOCKED, MALFORMED, TOO_LONG = "empty", "blocked", "malformed", "too_long"
INTERRUPTED = "interrupted"
RATE_LIMITED, NO_ANSWER, NOT_REACHED, NOT_SHOWN = "rate_limited", "no_answer", "not_reached", "not_shown"
REASONS = (EMPTY, BLOCKED, MALFORMED, TOO_LONG, INTERRUPTED, RATE_LIMITED, NO_ANSWER, NOT_REACHED, NOT_SHOWN)
"""Why there is no text: what the server did with the request, or how the last try ended."""

GetRow = Callable[[str], Mapping[str, Any] | None]
"""Returns the row of a key, None if there is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One text that is wanted. `id` is the journal's key for it; `messages` are as OpenAI has them.

    `tools` are those that the model is offered, as in `Conversation`.
    """

    id: str
    seed: str
    round: int
    role: Role
    messages: Sequence[Mapping[str, Any]]
    temperature: float
    max_tokens: int
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of a call: `text`, or `reason` (one of REASONS), `why` in words and the `raw` reply.

    `tries` and `seconds` (waiting for replies) are over all tries, `cost` too, in picodollars; tokens are
    those of the last try, and `estimated` where the server did not count them. `reasoning` are the thoughts
    before the text, `marks` what is odd about it (`replies.Mark`), `model` the other model that wrote it;
    `calls` are calls of tools after the text, which may then be blank.
    """

    text: str = ""
    truncated: bool = False
    reason: str = ""
    why: str = ""
    raw: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    tries: int = 1
    cost: int = 0
    seconds: float = 0.0
    reasoning: str = ""
    marks: tuple[str, ...] = ()
    model: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class CallRow:
    """The row of a call that has ended. `at` is when, in seconds since 1970."""

    seed: str
    round: int
    role: Role
    said: Completion
    at: int

    def to_json(self) -> dict[str, Any]:
        """Return the row as the journal holds it."""
        said = {name: getattr(self.said, name) for name in _FIELDS}
        said |= {name: value for name in _LATER if (value := getattr(self.said, name))}
        if self.said.calls:
            said["calls"] = [[call.name, call.arguments, call.id] for call in self.said.calls]
        return {"seed": self.seed, "round": self.round, "role": str(self.role), **said, "at": self.at}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CallRow:
        """Return the row of a journal. OutputConflictError for one this version does not write."""
        if (
            not (_ALL <= value.keys() <= _ALL | _LATER)
            or value["role"] not in set(Role)
            or value["reason"] not in ("", *REASONS)
        ):
            raise OutputConflictError(
                f"The journal has a row of {str(value.get('seed'))[:200]}, round {value.get('round')}, "
                "that this version of Tunesmith did not write. Choose another output.uri, or set "
                "output.onExisting: replace."
            )
        said = Completion(**{name: value[name] for name in (*_FIELDS, *(_LATER & value.keys()))})
        calls = tuple(ToolCall(*call) for call in value.get("calls", ()))
        said = replace(said, marks=tuple(said.marks), calls=calls)
        return cls(value["seed"], value["round"], Role(value["role"]), said, value["at"])


# Only in rows that have them; journals of earlier versions have none.
_LATER = frozenset({"reasoning", "marks", "model", "calls"})
_FIELDS = tuple(field.name for field in fields(Completion) if field.name not in _LATER)
_ALL = frozenset((*_FIELDS, "seed", "round", "role", "at"))


BUDGET = "budget/"
RETRY = "retry/"
HELD = f"{BUDGET}held/"


BATCH = "batch/"


def batch_key(endpoint: str, number: int, part: str = "") -> str:
    """Return the key of a batch, or of how far it has come."""
    return f"{BATCH}{endpoint}/{number}" + (f"/{part}" if part else "")


def budget_key(number: int) -> str:
    """Return the key of a record of the budget."""
    return f"{BUDGET}{number}"


@dataclass(frozen=True, slots=True)
class Held:
    """A try that a process has sent, or was about to send."""

    process: int
    call: str
    number: int

    @property
    def key(self) -> str:
        """Return the journal's key for what it can cost."""
        return f"{HELD}{self.process}/{self.reply}"

    @property
    def reply(self) -> str:
        """Return the journal's key for its reply."""
        return try_key(self.call, self.number)


def held_by(
    key: str, row: Callable[[], Mapping[str, Any]], replied: Callable[[str], bool]
) -> dict[Held, int]:
    """Return the tries about to be sent, by a row whose key starts with HELD or BATCH, that have no reply.

    Each with its worst case in picodollars.
    """
    if key.startswith(BATCH):
        return {each: most for each, most in held_by_batch(row()).items() if not replied(each.reply)}
    process, call, number = key.removeprefix(HELD).split("/")
    each = Held(int(process), call, int(number))
    return {} if replied(each.reply) else {each: int(row()["most"])}


def held_by_batch(row: Mapping[str, Any]) -> dict[Held, int]:
    """Return the tries in a batch's row, each with its worst case in picodollars; none without a budget."""
    parts = (asked.rpartition("-") for asked in row.get("calls", ()))
    tries = (Held(row["process"], call, int(number)) for call, _, number in parts)
    return dict(zip(tries, row.get("held", ()), strict=False))


def call_of_try(key: str) -> str:
    """Return the call that the row of this key is a try of; empty for all other rows."""
    return "" if key.startswith((BUDGET, BATCH)) or "/" not in key else key.partition("/")[0]


class CallJournal(Protocol):
    """Where rows go (`artifacts.journal.journal.Journal`)."""

    def append(self, key: str, record: Mapping[str, Any], *, durable: bool = False) -> bool:
        """Write a row that will not be lost, with `durable` not even in a power cut."""
        ...

    def flush(self) -> None:
        """Flush all rows to the disk, so that they survive a power cut."""
        ...


class Tries:
    """The tries of one call. `past` are the records that earlier processes left, in order.

    `durable`: each is flushed to the disk, since it is paid for; `flushes` does that for many calls at once.
    """

    def __init__(self, call: str, get: GetRow, rows: CallJournal, flushes: Flushes | None = None) -> None:
        self._call, self._rows, self.durable = call, rows, True
        self._flushes = flushes or Flushes(rows.flush)
        self.past: list[Mapping[str, Any]] = []
        while (record := get(try_key(call, len(self.past)))) is not None:
            self.past.append(record)
        self._next = len(self.past)
        self.seconds = sum(float(record["reply"]["seconds"]) for record in self.past)

    @property
    def next(self) -> int:
        """Return the number of the next try, from 0."""
        return self._next

    def hold(self, most: int, process: int) -> None:
        """Journal that the next try is about to be sent, and what it can cost in picodollars."""
        self._rows.append(Held(process, self._call, self._next).key, {"most": most})

    def write(self, record: Mapping[str, Any]) -> None:
        """Journal one try, {endpoint, request, reply}, before it is read."""
        self._rows.append(try_key(self._call, self._next), record)
        self._next += 1
        self.seconds += float(record["reply"]["seconds"])

    async def flushed(self) -> None:
        """Return when what was written is on the disk, if it has to be."""
        if self.durable:
            await self._flushes()


class ModelClient(Protocol):
    """A model that plays a role: the one seam to endpoints and engines."""

    async def call(self, call: Call, tries: Tries) -> Completion:
        """Make the call until it ends. Raises TunesmithError if the whole job must end."""
        ...

    def stop(self, error: TunesmithError) -> None:
        """Stop sending: calls that wait raise `error`, those in progress run to their end."""
        ...


def call_id(fingerprint: str, seed: str, number: int, role: Role) -> str:
    """Return the key of the call for the text of this seed, round (from 1) and role."""
    told = json.dumps([fingerprint, seed, number, str(role)])
    return blake2b(told.encode(), digest_size=16).hexdigest()


def try_key(call: str, number: int) -> str:
    """Return the key of try `number` (from 0) of a call."""
    return f"{call}/{number}"


def again_key(call: str, number: int) -> str:
    """The key of a call that is asked for the `number`th time, 0 being the first; `number` counts rounds of
    asking again, not how often this call was asked.
    """
    return f"{call}~{number}" if number else call


def retry_key(number: int) -> str:
    """Return the key of the row that begins the `number`th (from 1) round of retrying what has failed."""
    return f"{RETRY}{number}"


def retries(get: GetRow) -> list[str]:
    """Return the jobs that have begun a round of retries, in order."""
    found: list[str] = []
    while (row := get(retry_key(len(found) + 1))) is not None:
        found.append(str(row["job"]))
    return found


def turns_of(
    get: GetRow, call: str, seed: str, number: int, role: Role, again: int = 0
) -> list[tuple[int, CallRow]]:
    """How the call has ended, each time that it was asked for: (round of asking again, Turn), in order.

    `again` is the last such round. OutputConflictError for a row under a key that is not its own.
    """
    found: list[tuple[int, CallRow]] = []
    for each in range(again + 1):
        value = get(again_key(call, each))
        if value is None:
            continue
        turn = CallRow.from_json(value)
        if (turn.seed, turn.round, turn.role) != (seed, number, role):
            raise OutputConflictError(
                f"The journal's row {call} is of {turn.seed[:200]}, round {turn.round}, {turn.role}, and not "
                f"of {seed[:200]}, round {number}, {role}. Give one of these seeds another id."
            )
        found.append((each, turn))
    return found
