"""One batch from its intent to its last reply: file, batch, polls, files of results.

Whatever was done before is not done again: the intent, the file and the batch are in the journal, or found at
the server. Does not depend on money, and of dialogues only whose round and role it is.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunesmith.dialogue.batch.api import URL, BatchApi
from tunesmith.dialogue.calls import PAUSES
from tunesmith.dialogue.replies import ChatRequest, Denied, Outcome, ServerReply, parsed
from tunesmith.dialogue.turns import Call, Tries

OVER = frozenset({"completed", "failed", "expired", "cancelled"})
"""Statuses of a batch for which nothing more is done."""
_UNPAID = frozenset({"batch_expired", "batch_cancelled"})
"""Errors of requests that were not dealt with."""
FIRST_POLL, LONGEST_POLL = 1.0, 60.0
GRACE_SECONDS = 3600.0
"""How long a batch that was cancelled may take to its end."""
READS = 4
"""How often files are read that hold less than the server says."""


class Requests(Protocol):
    """What makes requests (`endpoint.Endpoint`)."""

    name: str

    def request(
        self, messages: Sequence[Mapping[str, Any]], temperature: float, max_tokens: int, tools: str = ""
    ) -> ChatRequest:
        """Return what would be sent."""
        ...

    def body(self, request: ChatRequest) -> Mapping[str, Any]:
        """Return the body as this server is known to want it."""
        ...

    def learns(self, body: Mapping[str, Any], reply: ServerReply) -> bool:
        """Return whether the reply says that it wants another, which `body` gives from then on."""
        ...


@dataclass(slots=True, eq=False)
class BatchedCall:
    """One request that waits for its batch, with the body that is sent.

    `id` is of its call and try; `most` is held for it, in picodollars. `denied`: it was refused before, and
    others were not.
    """

    id: str
    call: Call
    request: ChatRequest
    tries: Tries
    future: asyncio.Future[tuple[Outcome, ServerReply]]
    body: Mapping[str, Any]
    most: int = 0
    denied: bool = False

    def line(self) -> bytes:
        """Return the request as a batch's file holds it."""
        body = {name: value for name, value in self.body.items() if name != "stream"}
        value = {"custom_id": self.id, "method": "POST", "url": URL, "body": body}
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


@dataclass(slots=True, eq=False)
class CallBatch:
    """A batch from its intent on; `new` in the process that makes it. `at` is in seconds since 1970.

    `waiting` are requests without a reply, `denied` those that the server refused. `worked`: some were dealt
    with. `again`: some were refused for a reason that is no fault of theirs, and are sent again.
    """

    tag: str
    round: int
    role: str
    at: float
    number: int = 0
    new: bool = False
    id: str = ""
    file: str = ""
    again: bool = False
    waiting: dict[str, BatchedCall] = field(default_factory=dict)
    denied: dict[str, tuple[BatchedCall, ServerReply, Denied]] = field(default_factory=dict)
    worked: bool = False
    answered: int = 0
    done: int = 0
    total: int = 0


class Note(Protocol):
    """Writes down how far a batch has come (`BatchJournal.note`)."""

    def __call__(self, batch: CallBatch, part: str, **values: Any) -> None:
        """Note one part: `file`, `id` or `over`."""
        ...


class BatchRun:
    """What is done with a batch.

    `settle` gets each reply once, and takes its request off `waiting`. `labels` go into the batch's
    metadata. Raises what the client and the journal raise.
    """

    def __init__(
        self,
        client: BatchApi,
        note: Note,
        max_wait: float,
        settle: Callable[[CallBatch, BatchedCall, ServerReply], None],
        labels: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._note, self._max_wait = client, note, max_wait
        self._settle, self._labels, self._clock = settle, labels, clock

    async def make(self, batch: CallBatch) -> None:
        """The file and the batch, where they are not there yet."""
        if batch.id:
            return
        if not batch.file:
            content = b"".join(asked.line() for asked in batch.waiting.values())
            batch.file = await self._client.upload(batch.tag, content, new=batch.new)
            self._note(batch, "file", file=batch.file)
        labels = {**self._labels, "round": str(batch.round), "role": batch.role}
        found = await self._client.create(batch.tag, batch.file, labels, new=batch.new)
        batch.id = str(found["id"])
        self._note(batch, "id", id=batch.id)

    async def wait(self, batch: CallBatch) -> dict[str, Any]:
        """Return the batch at its end, or when it has taken too long even to be cancelled."""
        pause = FIRST_POLL
        while True:
            found = await self._client.state(batch.id)
            if found is None:
                return {"status": "missing"}
            state = {**found, "status": str(found.get("status")).lower()}
            batch.done = _done(state)
            waited = self._clock() - batch.at
            if state["status"] in OVER or waited > self._max_wait + GRACE_SECONDS:
                return state
            if waited > self._max_wait and state["status"] != "cancelling":
                await self._client.cancel(batch.id)
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL, pause * 1.5)

    async def collect(self, batch: CallBatch, state: Mapping[str, Any]) -> None:
        """Settle all that waits: by the lines of the batch's files, or by the fact that there is none."""
        status = state["status"]
        for number in range(READS):
            for name in ("output_file_id", "error_file_id"):
                if isinstance(state.get(name), str) and state[name]:
                    await self._client.read_lines(state[name], lambda line: self._take(batch, line))
            if not batch.waiting or (batch.answered >= _done(state) and status != "completed"):
                break
            await asyncio.sleep(PAUSES[number])
            state = await self._client.state(batch.id) or state
        paid = status not in ("expired", "cancelled")
        why = f"Batch {batch.id} is {status}, and its files have no reply."
        for asked in list(batch.waiting.values()):
            self._settle(batch, asked, ServerReply(0, "", {}, 0.0, why, sent=paid))

    def close(self, batch: CallBatch, status: str) -> None:
        """Nothing more comes of it."""
        self._note(batch, "over", status=status, again=batch.again)

    def _take(self, batch: CallBatch, line: str) -> None:
        """One line of a file of results, in any order."""
        value = parsed(line)
        asked = batch.waiting.get(str(value.get("custom_id"))) if isinstance(value, dict) else None
        if asked is not None:
            batch.answered += 1
            seconds = max(0.0, self._clock() - batch.at) / max(1, batch.total)
            self._settle(batch, asked, reply_of(value, seconds))


def reply_of(line: Mapping[str, Any], seconds: float) -> ServerReply:
    """Return a line of a file of results as the reply to a single call."""
    response, error = line.get("response"), line.get("error")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        body = response.get("body")
        if error and isinstance(body, dict):  # read as an error inside a reply is
            body = {**body, "error": error}
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        return ServerReply(response["status_code"], text, {}, seconds)
    error = error if isinstance(error, dict) else {}
    why = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
    text = json.dumps(line, ensure_ascii=False)
    sent = error.get("code") not in _UNPAID
    return ServerReply(0, text, {}, seconds, why or "The batch has an error without a message.", sent)


def errors_of(state: Mapping[str, Any]) -> str:
    """Return what the server says of a batch that it refuses."""
    errors = state.get("errors")
    data = errors.get("data") if isinstance(errors, dict) else None
    said = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    words = [f"{each.get('code') or ''} {each.get('message') or ''}".strip() for each in said[:3]]
    return "; ".join(word for word in words if word)[:500] or "nothing"


def _done(state: Mapping[str, Any]) -> int:
    """Return how many requests have been dealt with, as far as the server says."""
    counts = state.get("request_counts")
    found = [counts.get(name) for name in ("completed", "failed")] if isinstance(counts, dict) else []
    return sum(each for each in found if isinstance(each, int))


def awaited(batches: Iterable[CallBatch]) -> str:
    """Return what is waited for, since when, and how many requests are done; empty if nothing is."""
    running = sorted(batches, key=lambda batch: batch.number)
    if not running:
        return ""
    what = f"batch {running[0].id or 'to be made'}" if len(running) == 1 else f"{len(running)} batches"
    parts = dict.fromkeys(f"round {batch.round} {batch.role}" for batch in running)
    done, total = (sum(getattr(batch, name) for batch in running) for name in ("done", "total"))
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(batch.at for batch in running)))
    return f"waiting for {what} ({', '.join(parts)}), {done}/{total} requests done, since {since}"
