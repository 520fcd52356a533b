"""The calls of a DialogueGenJob: write every dialogue to its end, and send its rows to the storage."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.dialogue.money import dollars
from tunesmith.dialogue.rounds import MOST_OPEN, MOST_OPEN_IN_BATCHES, DialogueCounts, DialoguePlan, generate
from tunesmith.dialogue.seed_store import StoredSeeds
from tunesmith.dialogue.state import Dialogue, Role
from tunesmith.dialogue.turns import ModelClient
from tunesmith.jobs.dialogue_batches import Batching, awaited, uses_batches
from tunesmith.jobs.dialogue_budget import open_budget
from tunesmith.jobs.dialogue_clients import open_clients, tell_pauses
from tunesmith.jobs.dialogue_session import DialogueSession
from tunesmith.jobs.live import shortened_messages
from tunesmith.jobs.rows_notes import RowsNotes

log = logging.getLogger(__name__)
SEND_SECONDS = 20.0
"""How long the last rows may take to the storage when the job ends for another reason than being done."""


def ask(
    session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds, journal: Journal, earlier: CommittedRows
) -> None:
    """Write every dialogue to its end; all rows are in the storage when this returns."""
    tell = session.progress.teller("upload of rows")
    upload = RetryingTask("Upload of rows", journal.keep_sending, threading.Event(), tell=tell)

    def check() -> None:
        session.stop.check()
        if upload.error is not None:
            raise upload.error

    try:
        asyncio.run(_talk(session, plan, seeds, journal, earlier, check))
    except BaseException:
        _flush(journal, upload, SEND_SECONDS)
        raise
    while not _flush(journal, upload, 1.0):
        session.stop.check()
    if upload.error is not None:
        raise upload.error


def shown_rounds(dialogue: Dialogue) -> list[dict[str, str]]:
    """Return the texts of a dialogue's last rounds as `LiveView.latest` shows them."""
    texts = [(role, text) for each in dialogue.rounds for role, text in each.texts.items()]
    return shortened_messages([{"role": str(role), "content": text} for role, text in texts])


def _flush(journal: Journal, upload: RetryingTask, seconds: float) -> bool:
    """Return whether the last rows were sent within so many seconds."""
    journal.end()
    upload.expedite()
    deadline = time.monotonic() + seconds
    while not upload.done and time.monotonic() < deadline:
        time.sleep(0.02)
    return upload.done


async def _talk(
    session: DialogueSession,
    plan: DialoguePlan,
    seeds: StoredSeeds,
    journal: Journal,
    earlier: CommittedRows,
    check: Callable[[], None],
) -> None:
    for sentence in session.prices():
        log.info("%s", sentence)
    budget = open_budget(session.spec, session.disk, journal, earlier, session.retry_write)
    batching = Batching(session.run.name, journal, earlier.get, session.retry_write, session.progress)
    clients: dict[Role, ModelClient] = {}
    rows = RowsNotes(session.notes, session.progress, first=True)
    began = time.monotonic()

    def tell(tally: DialogueCounts) -> None:
        left = (time.monotonic() - began) / tally.done * (len(seeds) - tally.done) if tally.done else None
        session.progress.update(
            phase="generating",
            step=tally.done,
            total=len(seeds),
            dialogues=tally.done,
            secondsLeft=left,
            spentUsd=dollars(budget.spent) if budget else None,
            lostInFlightUsd=dollars(budget.lost) if budget else None,
            awaited=awaited(clients.values()),
        )
        tell_pauses(session.progress, clients)
        if tally.latest is not None:
            session.progress.live.latest(tally.latest.seed.id, {"messages": shown_rounds(tally.latest)})

    async with AsyncExitStack() as opened:
        clients |= await open_clients(
            session.spec, session.world, session.progress, session.found.day, budget, batching, opened, rows
        )
        most = MOST_OPEN_IN_BATCHES if uses_batches(session.spec) else MOST_OPEN
        try:
            await generate(
                plan,
                seeds,
                clients,
                journal,
                earlier.get,
                check=check,
                tell=tell,
                most_open=most,
                lull=batching.lull,
            )
        finally:
            if budget is not None:
                await budget.close()
