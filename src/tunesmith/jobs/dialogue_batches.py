"""Endpoints of a DialogueGenJob with the batch API, and their effect on its engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from tunesmith.api.dialogue import BatchSpec, DialogueGenSpec, EndpointSpec
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.dialogue.batch.api import BatchApi
from tunesmith.dialogue.batch.calls import BatchModelClient
from tunesmith.dialogue.batch.journal import BatchJournal
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.lull import LullDetector
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.state import ROLES
from tunesmith.dialogue.turns import GetRow, ModelClient
from tunesmith.engines.engine import Engine
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.resting_engine import RestingEngine
from tunesmith.jobs.retry import Retry
from tunesmith.tokens.chat import ChatTokenizer


def uses_batches(spec: DialogueGenSpec) -> bool:
    """Return whether a role uses a batch API."""
    used = [spec.endpoints[getattr(spec.roles, str(role)).endpoint] for role in ROLES]
    return any(each.openai is not None and each.openai.batch is not None for each in used)


def awaited(clients: Iterable[ModelClient]) -> str | None:
    """Describe the awaited batches."""
    batches = [each for each in dict.fromkeys(clients) if isinstance(each, BatchModelClient)]
    return "; ".join(filter(None, (each.waiting() for each in batches))) or None


@dataclass(frozen=True, slots=True)
class Batching:
    """State shared by clients if some wait for batches: the job's journal, and when all of them wait.

    `earlier` returns the rows of earlier attempts, `wait` retries work with the storage until it succeeds.
    """

    job: str
    journal: Journal
    earlier: GetRow
    wait: Retry
    progress: Progress
    lull: LullDetector = field(default_factory=LullDetector)

    async def client(
        self, server: Endpoint, endpoint: EndpointSpec, batch: BatchSpec, budget: Budget | None
    ) -> BatchModelClient:
        """Return the endpoint, with what earlier attempts have sent to it."""
        process = None if budget is None else budget.process
        client = BatchModelClient(
            server,
            BatchApi(server, self.progress.teller(f"endpoint {server.name}")),
            self.lull,
            BatchJournal(server.name, self.earlier, self.journal, self._send, process),
            max_wait=batch.max_wait_seconds,
            max_retries=endpoint.limits.max_retries,
            price=Price.at(endpoint),
            budget=budget,
            labels={"job": self.job},
        )
        await client.start()
        return client

    def resting(
        self, name: str, engine: Engine, start: Callable[[], Awaitable[tuple[Engine, ChatTokenizer]]]
    ) -> Engine:
        """Return the engine of an endpoint, closed while only batches are awaited."""

        async def again() -> Engine:
            return (await start())[0]

        return RestingEngine(name, engine, again, self.lull)

    async def _send(self) -> None:
        await asyncio.to_thread(self.wait, "Record of a batch", self.journal.send)
