"""RejectionSampleJob, from top to bottom: look at the output, get the inputs, draw, merge, publish.

Every pod runs this; what only one may do says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.artifacts.journal_rows import publish_rows
from tunesmith.artifacts.journal_turns import Turn, check
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.patient import PatientStore
from tunesmith.artifacts.store import Store, storage_options
from tunesmith.data.outcome import acceptance, sampled, too_many_not_sampled
from tunesmith.data.prompts import Prompts, prepare_prompts
from tunesmith.engines.files import ModelFiles, fetch_files, model_digest
from tunesmith.errors import TooManyFailedError
from tunesmith.jobs.added_records import (
    PROMPTS,
    check_growth,
    may_have_more,
    save_list,
    sources_of,
    with_added,
)
from tunesmith.jobs.engine_task import EngineTask
from tunesmith.jobs.inputs import clean_scratch
from tunesmith.jobs.output import SOURCES, Found, claim, examine, is_finished, make_way
from tunesmith.jobs.pods import join, wait_for, wait_for_all
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.sampled import write_result
from tunesmith.jobs.sampling import Draw
from tunesmith.jobs.secrets import hub_token
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.unpublished import show_unpublished
from tunesmith.jobs.world import World
from tunesmith.names import SAMPLING_STATS_KEY
from tunesmith.plan.needs import uris_of
from tunesmith.plan.run import Run
from tunesmith.sampling.pool import Verifiers
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
LEAVE_SECONDS = 30.0
"""How long the first pod, which holds what the others read, waits for them at the end."""


def rejection_sample(run: Run, world: World, progress: Progress) -> str:
    """Do a RejectionSampleJob. Returns the digest of the published manifest."""
    spec = cast(RejectionSampleSpec, run.spec)
    stop = StopFlag()
    store = PatientStore(
        open_store(spec.output.uri, storage_options(spec.storage)), stop.check, progress.teller("storage")
    )
    fields, chosen = run.result_fields(), run.result_fields(defaults=False)
    found = examine(store, spec.output, fields, world.job_uid, run.growth(), chosen)
    sources = sources_of(uris_of(spec.prompts), storage_options(spec.storage))
    if not may_have_more(found, world.job_uid, sources) and is_finished(found, spec.output.uri, progress):
        return _finished(store, progress, found)
    check_inputs(spec, storage_options(spec.storage))
    stop.listen()
    clean_scratch(world)
    files, prompts = _inputs(spec, world, progress, found)
    found = with_added(found, prompts)
    if is_finished(found, spec.output.uri, progress):
        return _finished(store, progress, found)
    stop.check()
    draw = Draw(
        "sampling",
        _task(run, world, files, found, prompts),
        store,
        prompts,
        world,
        join(world),
        progress,
        stop.check,
    )
    _claim(run, draw, files, found, sources)
    turn = draw.run(world.engines)
    if world.rank:
        digest = wait_for(draw.pods, "published", stop.check)
        draw.pods.tell(f"leaving/{world.rank}", "yes")
        return digest
    digest = _finish(run, draw, turn, found)
    draw.pods.tell("published", digest)
    wait_for_all(draw.pods, [f"leaving/{rank}" for rank in range(1, world.size)], LEAVE_SECONDS)
    progress.update(phase="finished", secondsLeft=None)
    return digest


def _finished(store: Store, progress: Progress, found: Found) -> str:
    """The digest of a result that was there already; how it ended is reported again."""
    _report(progress, json.loads(store.read(SAMPLING_STATS_KEY)))
    return found.digest


def _report(progress: Progress, statistics: Mapping[str, Any]) -> None:
    progress.message = sampled(statistics)
    progress.update(accepted=statistics["accepted"], text=acceptance(statistics))
    log.info("%s.", progress.message)


def _inputs(
    spec: RejectionSampleSpec, world: World, progress: Progress, found: Found
) -> tuple[ModelFiles, Prompts]:
    """The model's files and the prompts, on this pod's disk."""
    folder, options = world.node_folder, storage_options(spec.storage)
    folder.mkdir(parents=True, exist_ok=True)
    progress.update(phase="fetching the model")
    files = fetch_files(spec.model, spec.hub, options, folder, hub_token(spec))
    tokenizer = ChatTokenizer.load(
        files.tokenizer, trust_remote_code=spec.model.trust_remote_code, today=found.day
    )
    progress.update(phase="preparing the prompts")
    with Verifiers(spec.verifier, workers=1) as verifiers:
        prompts = prepare_prompts(
            spec.prompts,
            tokenizer,
            options,
            folder / "prompts",
            check=verifiers.check,
            progress=lambda records: progress.update(records=records),
        )
    progress.update(records=None)
    log.info("%d prompts: %s", len(prompts), "; ".join(prompts.sentences()))
    return files, prompts


def _task(run: Run, world: World, files: ModelFiles, found: Found, prompts: Prompts) -> EngineTask:
    spec = cast(RejectionSampleSpec, run.spec)
    return EngineTask(
        model=spec.model,
        files=files,
        sampling=spec.sampling,
        engine=spec.engine,
        verifier=spec.verifier,
        verifier_path="verifier",
        output=spec.output.uri,
        storage=spec.storage,
        job=world.job_uid or run.name,
        attempt=world.attempt,
        pod=world.rank,
        prompts=prompts.folder,
        journal=world.journal / "sampling",
        day=found.day,
    )


def _claim(run: Run, draw: Draw, files: ModelFiles, found: Found, sources: str | None) -> None:
    """Rank 0 makes the output this job's; the others begin when it is."""
    if draw.world.rank == 0:
        check_growth(draw.store, found, draw.prompts, PROMPTS)
        fingerprint = {
            "spec": run.result_fields(),
            "data": draw.prompts.digest,
            "model": model_digest(files),
            SOURCES: sources,
        }
        claim(draw.store, found, fingerprint)
        save_list(draw.store, draw.prompts, PROMPTS)
        draw.pods.tell("claimed", "yes")
    wait_for(draw.pods, "claimed", draw.check)


def _finish(run: Run, draw: Draw, turn: Turn, found: Found) -> str:
    """Merge all rows into the outputs and publish them: rank 0.

    The stored journal stays, for a job that wants more samples or has more prompts.
    """
    folder: Path = draw.world.node_folder / "output"
    rows = draw.rows(turn)
    try:
        draw.progress.update(phase="writing the outputs")
        written = write_result(run, draw, rows, folder)
    finally:
        rows.close()
    allowed = cast(RejectionSampleSpec, run.spec).max_failed_ratio
    if failed := too_many_not_sampled(written.statistics, allowed):
        show_unpublished(draw.store, folder)
        raise TooManyFailedError(failed)
    draw.progress.update(phase="publishing")
    digests: list[str] = []
    draw.patiently("Publishing", lambda: digests.append(_publish(run, draw, turn, found, folder)))
    draw.forget_local()
    _report(draw.progress, written.statistics)
    log.info("Published %s.", draw.store.uri)
    return digests[-1]


def _publish(run: Run, draw: Draw, turn: Turn, found: Found, folder: Path) -> str:
    check(draw.store, turn)
    make_way(draw.store, found)
    return publish_rows(draw.store, turn, folder, extra={"kind": run.kind})
