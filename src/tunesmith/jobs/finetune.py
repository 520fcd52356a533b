"""FineTuneJob, from top to bottom: look at the output, get the inputs, train, publish.

A job with method none only evaluates (`evaluate_only`), and over a finished output nothing is trained again:
what was added to look at is done (`evaluate_again`).

Every rank runs this; what only one may do says so.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, cast

from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.republish import finish_republish
from tunesmith.artifacts.store import storage_options
from tunesmith.engines.files import model_digest
from tunesmith.engines.load import model_config
from tunesmith.engines.skip_imports import skip_imports, unneeded_packages
from tunesmith.errors import StoppedError
from tunesmith.jobs.evaluate import Evaluations
from tunesmith.jobs.evaluate_again import compared_fields, evaluate_again, is_looked_at
from tunesmith.jobs.evaluate_only import evaluate_model
from tunesmith.jobs.exports import Exports
from tunesmith.jobs.hang_detection import make_hang_detector, start_hang_detector
from tunesmith.jobs.inputs import Inputs, data_digest, gather_inputs
from tunesmith.jobs.memory import use_gradient_checkpointing
from tunesmith.jobs.models import trained_models
from tunesmith.jobs.output_lock import ExistingOutput, OutputState, claim, inspect, is_finished
from tunesmith.jobs.preflight import check_inputs
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.results import Results
from tunesmith.jobs.session import TrainingSession
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.tracking import open_sinks, peak_memory
from tunesmith.jobs.world import World
from tunesmith.names import EVALUATION, FINAL_MODEL, checkpoint_key
from tunesmith.plan.run import Run
from tunesmith.training.checkpoints import Checkpoints, Ranks
from tunesmith.training.deepspeed.config import refuse_wrong
from tunesmith.training.disk import full_disk_explained
from tunesmith.training.metrics import Metrics
from tunesmith.training.training_args import eval_every, plan_steps, training_arguments

log = logging.getLogger(__name__)


def fine_tune(run: Run, world: World, progress: Progress) -> str:
    """Do a FineTuneJob. Returns the digest of the published manifest."""
    spec = cast(FineTuneSpec, run.spec)
    refuse_wrong(spec)
    store = open_store(spec.output.uri, storage_options(spec.storage))
    fields, chosen = compared_fields(store, run), run.result_fields(defaults=False)
    found = inspect(store, spec.output, fields, world.job_uid, chosen=chosen)
    finished = found.state is OutputState.FINISHED
    if finished and is_looked_at(store, run) and is_finished(found, spec.output.uri, progress):
        return finish_republish(store, f"{EVALUATION}/") if world.rank == 0 else found.digest
    if world.local_rank == 0 and not finished:
        check_inputs(spec, storage_options(spec.storage))
    stop = StopFlag()
    stop.listen()
    folder = world.node_folder / "output"
    hang_detector = make_hang_detector(world, os.environ)
    session = TrainingSession(run, spec, world, progress, store, stop, hang_detector, folder)
    if finished:
        return evaluate_again(session, found)
    if evaluate_only(spec):
        return evaluate_model(session, found)
    inputs = gather_inputs(run, world, progress, found.day)
    stop.check()
    folder.mkdir(exist_ok=True)
    return _train(session, inputs, found)


def _ranks(world: World) -> Ranks:
    import torch.distributed as dist

    def gather(value: Any) -> list[Any]:
        if world.size == 1:
            return [value]
        values: list[Any] = [None] * world.size
        dist.all_gather_object(values, value)
        return values

    return Ranks(world.rank, world.local_rank, world.size, gather)


def _train(session: TrainingSession, inputs: Inputs, found: ExistingOutput) -> str:
    spec, world = session.spec, session.world
    skip_imports(
        *unneeded_packages(
            model_config(inputs.files.base),
            quantised=spec.method.qlora is not None or "paged" in spec.training.optimizer,
            deepspeed=spec.deepspeed is not None,
        )
    )
    from tunesmith.training.model import build_model, computed_in

    table = inputs.prepared.train
    plan = plan_steps(spec, table, world.size, world.rank)
    every = eval_every(spec, table, world.size)
    dtype = computed_in(spec, inputs.files.base)
    exports = Exports(session.run.name, spec, inputs, dtype, world.node_folder)
    if session.first:
        exports.rehearse()
    checkpoints_folder = session.world.node_folder / "checkpoints"
    arguments = training_arguments(
        spec,
        checkpoints_folder,
        steps=len(plan),
        every=every,
        dtype=str(dtype).removeprefix("torch."),
        world=world.size,
    )
    start_hang_detector(session.hang_detector, world)
    ranks = _ranks(world)
    if session.first:
        fingerprint = {
            "spec": session.run.result_fields(),
            "data": data_digest(inputs.prepared),
            "model": model_digest(inputs.files),
        }
        if inputs.evaluations:
            fingerprint["evaluation"] = [prompts.digest for prompts in inputs.evaluations]
        claim(session.patient, found, fingerprint)
    ranks.gather(None)
    checkpoints = Checkpoints(
        session.store,
        spec.training.save_total_limit,
        ranks,
        lambda _: session.hang_detector.beat(phase="resuming"),
    )
    newest = checkpoints.newest(checkpoints_folder)
    log.info("Starting at the first step." if newest is None else f"Going on after step {newest}.")
    session.hang_detector.beat(newest or 0, "building the model")
    gradient_checkpointing = use_gradient_checkpointing(
        spec,
        inputs.files.base,
        tokens=plan.most_tokens,
        dtype=dtype,
        ranks=ranks,
        processes=world.local_size,
    )
    model = build_model(
        spec, inputs.files.base, inputs.files.adapters, gradient_checkpointing=gradient_checkpointing
    )
    session.hang_detector.beat(phase="preparing to train")
    results = Results(session, inputs, model, exports)
    if session.first:
        results.begin()
    resume = None if newest is None else checkpoints_folder / checkpoint_key(newest)
    trainer = _trainer(session, inputs, model, plan, every, arguments, checkpoints, results, resume)
    with full_disk_explained(checkpoints_folder):
        trainer.go_on(resume)
    if trainer.stopping:
        step = trainer.state.global_step
        raise StoppedError(f"Stopped after step {step}, which is saved. Run it again to go on from there.")
    return _finish(session, inputs, trainer, checkpoints, results, ranks)


def _metrics(session: TrainingSession, steps: int, resume: Path | None) -> Metrics | None:
    """Rank 0's metrics, gone on with where a checkpoint is."""
    if not session.first:
        return None
    sinks = open_sinks(session, session.folder)
    metrics = Metrics(session.folder, session.spec.training.logging_steps, steps, sinks, peak_memory)
    if resume is not None:
        metrics.restore(resume)
    return metrics


def _trainer(
    session: TrainingSession,
    inputs: Inputs,
    model: Any,
    plan: Any,
    every: int,
    arguments: Any,
    checkpoints: Checkpoints,
    results: Results,
    resume: Path | None,
) -> Any:
    from transformers import EarlyStoppingCallback
    from transformers.trainer_callback import PrinterCallback

    from tunesmith.training.callbacks import AtBegin, EvaluateAt, StopWhenAsked
    from tunesmith.training.health import Health
    from tunesmith.training.recorder import Recorder
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.uploads import UploadHooks, Uploads

    spec = session.spec
    metrics = results.metrics = _metrics(session, len(plan), resume)
    around = UploadHooks(
        after=results.upload_logs,
        seconds_left=session.stop.seconds_left,
        beat=lambda: session.hang_detector.beat(phase="waiting for an upload"),
        tell=session.progress.teller("upload of a checkpoint"),
    )
    uploads = Uploads(checkpoints, around)
    health = Health(model.config.get_text_config().vocab_size, session.store.uri, uploads.settled)
    if resume is not None:
        health.restore(resume)
    recorder = Recorder(
        Path(arguments.output_dir),
        uploads,
        metrics,
        plan.steps_per_epoch,
        session.progress.update,
        session.hang_detector,
        health,
        results.complete_checkpoint,
    )
    stopper = StopWhenAsked()
    known: bool = checkpoints.ranks.gather(results.before_known() if session.first else None)[0]
    begin = AtBegin(lambda: _begin(session, trainer, results, checkpoints.ranks, known))
    callbacks: list[Any] = [begin, recorder, stopper]
    if spec.validation.active:
        callbacks.append(EvaluateAt(every))
    if spec.training.early_stopping:
        early = spec.training.early_stopping
        callbacks.append(EarlyStoppingCallback(early.patience, early.threshold))
    pad = inputs.tokenizer.tokenizer.pad_token_id
    reduction = spec.training.loss_reduction
    trainer = StepTrainer(
        steps=StepDataset(inputs.prepared.train, plan, reduction, 0 if pad is None else pad),
        validation=inputs.prepared.validation,
        stop_asked=lambda: session.stop.asked,
        health=health,
        beat=session.hang_detector.beat,
        model=model,
        args=arguments,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    recorder.trainer = stopper.trainer = trainer
    return trainer


def _begin(session: TrainingSession, trainer: Any, results: Results, ranks: Ranks, known: bool) -> None:
    """Previews and validation loss of the model as it came, unless they are `known` from the first start.

    Everything stands by now: weights that are shared out cannot be computed with before.
    """
    from transformers import set_seed

    _check_tree(session, trainer, results)
    if not known:
        loss = None
        if session.spec.validation.active:
            session.progress.update(phase="validation loss before training")
            loss = trainer.validation_loss(trainer.model_wrapped)
        session.hang_detector.beat(phase="previews before training")
        session.progress.update(phase="previews before training")
        replies = results.previews()
        if session.first:
            results.write_before(loss, replies)
        ranks.gather(None)
    session.stop.check()
    # Dropout differs from rank to rank; what came before must not change it.
    set_seed(session.spec.training.seed + session.world.rank)


def _check_tree(session: TrainingSession, trainer: Any, results: Results) -> None:
    """Try tree packing where it is asked for; what came of it is in log and metrics."""
    if session.spec.training.packing != "tree":
        return
    check = trainer.check_tree(session.spec.model.attention)
    if not check.used:
        log.warning("Tree packing is off: %s. Samples are padded instead, with the same loss.", check.reason)
    if results.metrics is not None and not results.metrics.rows:
        results.metrics.tree_packing(check.used, check.difference)


def _finish(
    session: TrainingSession,
    inputs: Inputs,
    trainer: Any,
    checkpoints: Checkpoints,
    results: Results,
    ranks: Ranks,
) -> str:
    """Load the best weights if they were asked for, then write and publish everything."""
    best = trainer.state.best_global_step
    use_best = session.spec.training.early_stopping is not None and best not in (
        None,
        trainer.state.global_step,
    )
    if use_best:
        folder = session.world.node_folder / "best"
        if session.world.local_rank == 0:
            checkpoints.fetch(best, folder)
        ranks.gather(None)
        trainer.load_weights(folder)
    digest = ""
    session.hang_detector.beat(phase="previews after training")
    session.progress.update(phase="previews after training", secondsLeft=None)
    replies, weights = results.previews(), trainer.whole_weights()
    if session.first:
        results.save_model(weights)
    del weights
    evaluations = _evaluations(session, trainer, inputs)
    if session.first:
        used = best if use_best else trainer.state.global_step
        results.write_after(trainer.state, used, replies, evaluations.run() if evaluations else [])
        session.progress.update(phase="publishing")
        digest = publish(
            session.patient, "", session.folder, extra={"kind": session.run.kind},
            progress=lambda _: session.hang_detector.beat(phase="publishing"),
        )  # fmt: skip
        if evaluations:
            evaluations.forget()
        session.progress.update(phase="finished")
        log.info("Published %s.", session.store.uri)
    ranks.gather(None)
    return digest


def _evaluations(session: TrainingSession, trainer: Any, inputs: Inputs) -> Evaluations | None:
    """What rank 0 is to evaluate, once no rank holds any memory of its device for training."""
    if not session.spec.evaluation:
        return None
    from tunesmith.training.free_memory import free_trainer

    free_trainer(trainer)
    if not session.first:
        return None

    def check() -> None:
        session.hang_detector.beat(phase="evaluating")
        session.stop.check()

    models = trained_models(
        session.spec,
        inputs.files,
        session.folder / FINAL_MODEL,
        inputs.evaluations,
        inputs.tokenizer.today,
    )
    return Evaluations(session, [*models, *inputs.compared], check, subject=len(models) - 1)
