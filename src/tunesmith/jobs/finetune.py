"""FineTuneJob, from top to bottom: inspect the output, get the inputs, train, publish.

A job with method none only evaluates (`evaluate_only`), and over a finished output nothing is trained again:
only added evaluations and exports are done (`evaluate_again`, `add_exports`).

Every rank runs this; what only one rank does is marked so.
"""

from __future__ import annotations

import os
from typing import cast

from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.republish import finish_republish
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import storage_options
from tunesmith.jobs.add_exports import add_exports, check_exports, fetch_final_model, is_exported
from tunesmith.jobs.begin_training import begin_training
from tunesmith.jobs.evaluate_again import compared_fields, evaluate_again, is_looked_at, with_trained
from tunesmith.jobs.evaluate_only import evaluate_model, own_models
from tunesmith.jobs.hang_detection import make_hang_detector
from tunesmith.jobs.inputs import gather_inputs, own_model
from tunesmith.jobs.memory_notes import MemoryNotes
from tunesmith.jobs.models import tuned_of
from tunesmith.jobs.output_lock import ExistingOutput, OutputState, inspect, is_finished
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.reading import reading_options
from tunesmith.jobs.session import TrainingSession
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.world import World
from tunesmith.names import ADDED_LATER, FINAL_MODEL
from tunesmith.plan.run import Run
from tunesmith.training.deepspeed.config import refuse_wrong


def fine_tune(run: Run, world: World, progress: Progress) -> str:
    """Run a FineTuneJob. Return the digest of the published manifest."""
    spec = cast(FineTuneSpec, run.spec)
    refuse_wrong(spec)
    store = open_store(spec.output.uri, storage_options(spec.storage))
    fields, chosen = compared_fields(store, run), run.result_fields(defaults=False)
    found = inspect(store, spec.output, fields, world.job_uid, chosen=chosen)
    finished = found.state is OutputState.FINISHED
    nothing_new = finished and is_looked_at(store, run) and is_exported(store, spec.export)
    if nothing_new and is_finished(found, spec.output.uri, progress):
        return finish_republish(store, ADDED_LATER) if world.rank == 0 else found.digest
    stop = StopFlag()
    patient = RetryingStore(store, stop.check, progress.teller("storage"))
    notes = MemoryNotes.of(patient, run, world)
    notes.refuse_hopeless()
    if world.local_rank == 0 and not finished:
        check_inputs(spec, reading_options(spec, found))
    stop.listen()
    folder = world.node_folder / "output"
    hang_detector = make_hang_detector(world, os.environ)
    session = TrainingSession(run, spec, world, progress, store, stop, hang_detector, notes, folder)
    if finished:
        return _add_later(session, found) if session.first else ""
    if evaluate_only(spec):
        return evaluate_model(session, found)
    inputs = gather_inputs(run, world, progress, found)
    stop.check()
    folder.mkdir(exist_ok=True)
    base = own_model(spec, inputs)
    if session.first:
        check_exports(session, base)
    training = begin_training(session, inputs, found)
    digest = training.run()
    return (
        add_exports(session, tuned_of(spec, base, folder / FINAL_MODEL), digest) if session.first else digest
    )


def _add_later(session: TrainingSession, found: ExistingOutput) -> str:
    """Add evaluations and exports to a finished output, on rank 0. Return the manifest's digest."""
    models = own_models(session, found)
    digest = found.digest
    if not is_looked_at(session.store, session.run):
        digest = evaluate_again(session, models)
    if is_exported(session.store, session.spec.export):
        return digest
    check_exports(session, models[0])
    fetch_final_model(session)
    return add_exports(session, with_trained(session, models)[1], digest)
