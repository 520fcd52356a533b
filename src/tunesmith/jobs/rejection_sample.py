"""RejectionSampleJob, from top to bottom: inspect the output, get the inputs, sample, merge, publish.

Every pod runs this; what only one pod does is marked so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.artifacts.journal.fencing import Epoch, check_epoch
from tunesmith.artifacts.journal.rows import publish_rows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import Store, storage_options
from tunesmith.data.outcome import acceptance, sampled, too_many_not_sampled
from tunesmith.data.prompts.load import Prompts, prepare_prompts
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
from tunesmith.jobs.engine_settings import EngineSettings
from tunesmith.jobs.inputs import clean_scratch
from tunesmith.jobs.memory_notes import FINISHING, MemoryNotes
from tunesmith.jobs.output_lock import SOURCES, ExistingOutput, claim, inspect, is_finished, remove_outgrown
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.reading import commits_of, reading_options
from tunesmith.jobs.rendezvous import join, wait_for, wait_for_all
from tunesmith.jobs.sampling import SamplingRun
from tunesmith.jobs.sampling_results import write_result
from tunesmith.jobs.secrets import hub_token
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.unpublished import show_unpublished
from tunesmith.jobs.world import World
from tunesmith.names import SAMPLING_STATS_KEY
from tunesmith.plan.run import Run
from tunesmith.sampling.pool import VerifierPool
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
LEAVE_SECONDS = 30.0
"""How long the first pod, which has the shared store, waits for the others at the end."""


def rejection_sample(run: Run, world: World, progress: Progress) -> str:
    """Run a RejectionSampleJob. Return the digest of the published manifest."""
    spec = cast(RejectionSampleSpec, run.spec)
    stop = StopFlag()
    store = RetryingStore(
        open_store(spec.output.uri, storage_options(spec.storage)), stop.check, progress.teller("storage")
    )
    fields, chosen = run.result_fields(), run.result_fields(defaults=False)
    found = inspect(store, spec.output, fields, world.job_uid, run.growth(), chosen)
    sources = sources_of(spec.prompts, reading_options(spec, found))
    if not may_have_more(found, world.job_uid, sources) and is_finished(found, spec.output.uri, progress):
        return _finished(store, progress, found)
    notes = MemoryNotes.of(store, run, world)
    notes.refuse_hopeless()
    check_inputs(spec, reading_options(spec, found))
    stop.listen()
    clean_scratch(world)
    files, prompts = _inputs(spec, world, progress, found)
    found = with_added(found, prompts)
    if is_finished(found, spec.output.uri, progress):
        return _finished(store, progress, found)
    stop.check()
    sampling_run = SamplingRun(
        "sampling",
        _task(run, world, files, found, prompts),
        store,
        prompts,
        world,
        join(world),
        progress,
        stop.check,
        notes,
    )
    _claim(run, sampling_run, files, found, sources)
    epoch = sampling_run.run(world.engines)
    if world.rank:
        digest = wait_for(sampling_run.pods, "published", stop.check)
        sampling_run.pods.set(f"leaving/{world.rank}", "yes")
        return digest
    digest = _finish(run, sampling_run, epoch, found)
    sampling_run.pods.set("published", digest)
    wait_for_all(sampling_run.pods, [f"leaving/{rank}" for rank in range(1, world.size)], LEAVE_SECONDS)
    progress.update(phase="finished", secondsLeft=None)
    return digest


def _finished(store: Store, progress: Progress, found: ExistingOutput) -> str:
    """Return the digest of an existing result, whose outcome is reported again."""
    _report(progress, json.loads(store.read(SAMPLING_STATS_KEY)))
    return found.digest


def _report(progress: Progress, statistics: Mapping[str, Any]) -> None:
    progress.message = sampled(statistics)
    progress.update(accepted=statistics["accepted"], text=acceptance(statistics))
    log.info("%s.", progress.message)


def _inputs(
    spec: RejectionSampleSpec, world: World, progress: Progress, found: ExistingOutput
) -> tuple[ModelFiles, Prompts]:
    """Fetch the model's files and the prompts to this pod's disk."""
    folder, options = world.node_folder, reading_options(spec, found)
    folder.mkdir(parents=True, exist_ok=True)
    progress.update(phase="fetching the model")
    files = fetch_files(spec.model, spec.hub, options, folder, hub_token(spec))
    tokenizer = ChatTokenizer.load(
        files.tokenizer, trust_remote_code=spec.model.trust_remote_code, today=found.day
    )
    progress.update(phase="preparing the prompts")
    with VerifierPool(spec.verifier, workers=1) as verifiers:
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


def _task(
    run: Run, world: World, files: ModelFiles, found: ExistingOutput, prompts: Prompts
) -> EngineSettings:
    spec = cast(RejectionSampleSpec, run.spec)
    return EngineSettings(
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


def _claim(
    run: Run, sampling_run: SamplingRun, files: ModelFiles, found: ExistingOutput, sources: str | None
) -> None:
    """Claim the output on rank 0; the others wait for it."""
    if sampling_run.world.rank == 0:
        check_growth(sampling_run.store, found, sampling_run.prompts, PROMPTS)
        fingerprint = {
            "spec": run.result_fields(),
            "data": sampling_run.prompts.digest,
            "model": model_digest(files),
            SOURCES: sources,
            **commits_of(run.spec, reading_options(run.spec, found)),
        }
        claim(sampling_run.store, found, fingerprint)
        save_list(sampling_run.store, sampling_run.prompts, PROMPTS)
        sampling_run.pods.set("claimed", "yes")
    wait_for(sampling_run.pods, "claimed", sampling_run.check)


def _finish(run: Run, sampling_run: SamplingRun, epoch: Epoch, found: ExistingOutput) -> str:
    """Merge all rows into the outputs and publish them: rank 0.

    The stored journal stays, for a job that wants more samples or has more prompts.
    """
    sampling_run.notes.begin(FINISHING)
    folder: Path = sampling_run.world.node_folder / "output"
    rows = sampling_run.rows(epoch)
    try:
        sampling_run.progress.update(phase="writing the outputs")
        written = write_result(run, sampling_run, rows, folder)
    finally:
        rows.close()
    allowed = cast(RejectionSampleSpec, run.spec).max_failed_ratio
    if failed := too_many_not_sampled(written.statistics, allowed):
        show_unpublished(sampling_run.store, folder)
        raise TooManyFailedError(failed)
    sampling_run.progress.update(phase="publishing")
    digests: list[str] = []
    sampling_run.retry(
        "Publishing", lambda: digests.append(_publish(run, sampling_run, epoch, found, folder))
    )
    sampling_run.forget_local()
    _report(sampling_run.progress, written.statistics)
    log.info("Published %s.", sampling_run.store.uri)
    return digests[-1]


def _publish(run: Run, sampling_run: SamplingRun, epoch: Epoch, found: ExistingOutput, folder: Path) -> str:
    check_epoch(sampling_run.store, epoch)
    remove_outgrown(sampling_run.store, found)
    return publish_rows(sampling_run.store, epoch, folder, extra={"kind": run.kind})
