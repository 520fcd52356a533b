"""What the journal knows of the batches of one endpoint: what was about to be sent, and how far it has come.

The only file that reads and writes these rows; `turns` has their keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.dialogue.batch.run import CallBatch
from tunesmith.dialogue.turns import CallJournal, GetRow, Held, batch_key, held_by_batch


@dataclass(frozen=True, slots=True)
class LeftBatches:
    """What earlier processes have left, by the ids of requests without a reply.

    `batches` are in progress, or about to be sent; `held` is in picodollars.
    """

    batches: dict[str, CallBatch] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)


class BatchJournal:
    """The rows of the batches of endpoint `name`.

    `get` gives those of earlier processes, `send` brings rows to the storage; `process` is the number that
    the budget gives this process, None without a budget.
    """

    def __init__(
        self,
        name: str,
        get: GetRow,
        rows: CallJournal,
        send: Callable[[], Awaitable[None]],
        process: int | None,
    ) -> None:
        self._name, self._get, self._rows, self._send = name, get, rows, send
        self._process, self._next = process, 0

    async def intend(self, batch: CallBatch) -> None:
        """Give a batch its number, and say in the storage what is about to be sent and what it can cost.

        All in one row: money is held for what may be sent and for nothing else, whenever a kill comes.
        """
        batch.number, self._next = self._next, self._next + 1
        intent = {
            "tag": batch.tag,
            "round": batch.round,
            "role": batch.role,
            "at": batch.at,
            "process": self._process or 0,
            "calls": list(batch.waiting),
        }
        if self._process is not None:
            intent["held"] = [asked.most for asked in batch.waiting.values()]
        self._rows.append(batch_key(self._name, batch.number), intent, durable=True)
        await self._send()

    def note(self, batch: CallBatch, part: str, **values: Any) -> None:
        """Write down how far it has come."""
        self._rows.append(batch_key(self._name, batch.number, part), values)

    def left(self) -> LeftBatches:
        """Read what earlier processes have left. What it holds is held by this process from here on."""
        found = LeftBatches()
        while (intent := self._get(batch_key(self._name, self._next))) is not None:
            self._read(intent, found)
            self._next += 1
        return found

    def _read(self, intent: Mapping[str, Any], found: LeftBatches) -> None:
        parts = ("file", "id", "over")
        file, made, over = (self._get(batch_key(self._name, self._next, part)) for part in parts)
        if over is not None and not over["again"]:
            return
        batch = CallBatch(intent["tag"], intent["round"], intent["role"], intent["at"], number=self._next)
        batch.file, batch.id = str(file["file"]) if file else "", str(made["id"]) if made else ""
        held = held_by_batch(intent)
        for asked in intent["calls"]:
            call, _, at = asked.rpartition("-")
            about = Held(intent["process"], call, int(at))
            if self._get(about.reply) is not None:
                continue
            if over is None:
                found.batches[asked] = batch
            if about in held and self._process is not None and asked not in found.held:
                found.held[asked] = held[about]
                self._rows.append(replace(about, process=self._process).key, {"most": held[about]})
