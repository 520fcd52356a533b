"""FineTuneJob, from top to bottom: look at the output, get the inputs, train, publish.

Every rank runs this; what only one may do says so.
"""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import Store, open_store
from tunesmith.errors import StoppedError
from tunesmith.jobs.inputs import Inputs, data_digest, gather_inputs, model_digest, storage_options
from tunesmith.jobs.output import Found, State, claim, examine
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.results import Results
from tunesmith.jobs.world import World
from tunesmith.names import LOGS, checkpoint_key
from tunesmith.plan.run import Run
from tunesmith.training.arguments import eval_every, plan_steps, training_arguments
from tunesmith.training.checkpoints import Checkpoints, Ranks
from tunesmith.training.metrics import Metrics, Sink

log = logging.getLogger(__name__)


@dataclass(slots=True)
class StopFlag:
    """Set by SIGTERM; looked at once a step."""

    asked: bool = False

    def listen(self) -> None:
        """Have SIGTERM set the flag instead of ending the process."""
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: Any) -> None:
        self.asked = True
        log.warning("Told to stop: the step under way is finished and saved.")

    def check(self) -> None:
        """Raises StoppedError if the flag is set."""
        if self.asked:
            raise StoppedError("The job was told to stop before it began to train. Run it again to go on.")


@dataclass(slots=True)
class Session:
    """What the parts of a run share on one rank."""

    run: Run
    spec: FineTuneSpec
    world: World
    progress: Progress
    store: Store
    stop: StopFlag
    folder: Path
    """Files that become the output, on rank 0."""
    started: float = field(default_factory=time.monotonic)

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.world.rank == 0


def fine_tune(run: Run, world: World, progress: Progress) -> str:
    """Do a FineTuneJob. Returns the digest of the published manifest."""
    spec = cast(FineTuneSpec, run.spec)
    store = open_store(spec.output.uri, storage_options(spec.storage))
    found = examine(store, spec.output, run.result_fields(), world.job_uid)
    if found.state is State.FINISHED:
        log.info("%s is finished already; nothing is done.", spec.output.uri)
        progress.update(phase="finished already")
        return found.digest
    stop = StopFlag()
    stop.listen()
    inputs = gather_inputs(spec, world, progress, found.day)
    stop.check()
    folder = world.node_folder / "output"
    folder.mkdir(exist_ok=True)
    session = Session(run, spec, world, progress, store, stop, folder)
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


def _train(session: Session, inputs: Inputs, found: Found) -> str:
    from tunesmith.engines.load import resolve_dtype
    from tunesmith.training.model import build_model

    spec, world = session.spec, session.world
    table = inputs.prepared.train
    plan = plan_steps(spec, table, world.size, world.rank)
    every = eval_every(spec, table, world.size)
    dtype = resolve_dtype(inputs.model, spec.model.dtype)
    checkpoints_folder = session.world.node_folder / "checkpoints"
    arguments = training_arguments(
        spec, checkpoints_folder, steps=len(plan), every=every, dtype=str(dtype).removeprefix("torch.")
    )
    ranks = _ranks(world)
    if session.first:
        fingerprint = {
            "spec": session.run.result_fields(),
            "data": data_digest(inputs.prepared),
            "model": model_digest(inputs.model),
        }
        claim(session.store, found, fingerprint)
    ranks.gather(None)
    checkpoints = Checkpoints(session.store, spec.training.save_total_limit, ranks)
    newest = checkpoints.newest(checkpoints_folder)
    log.info("Starting at the first step." if newest is None else f"Going on after step {newest}.")
    model = build_model(spec, inputs.model)
    results = Results(session, inputs, model, dtype)
    if session.first:
        results.begin()
    resume = None if newest is None else checkpoints_folder / checkpoint_key(newest)
    trainer = _trainer(session, inputs, model, plan, every, arguments, checkpoints, results, resume)
    _before(session, trainer, results, ranks)
    trainer.go_on(resume)
    if trainer.stopping:
        step = trainer.state.global_step
        raise StoppedError(f"Stopped after step {step}, which is saved. Run it again to go on from there.")
    return _finish(session, trainer, checkpoints, results, ranks)


def _sinks(session: Session, folder: Path) -> list[Sink]:
    from tunesmith.jobs.secrets import secret
    from tunesmith.training.metrics import TensorBoard, Wandb

    tracking = session.spec.tracking
    sinks: list[Sink] = []
    if tracking.tensorboard:
        sinks.append(TensorBoard(folder / LOGS))
    if tracking.wandb:
        sinks.append(
            Wandb(
                folder / LOGS,
                run_id=session.store.uri,
                project=tracking.wandb.project,
                name=tracking.wandb.run_name or session.run.name,
                entity=tracking.wandb.entity,
                key=secret(tracking.wandb.api_key_secret_ref),
                config=session.run.result_fields(),
            )
        )
    return sinks


def _peak_memory() -> int:
    """Highest memory so far, in bytes: the GPU's, or the process's on a CPU."""
    import resource

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _trainer(
    session: Session,
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

    from tunesmith.training.recorder import Recorder
    from tunesmith.training.trainer import EvaluateAt, StepDataset, StepTrainer, StopWhenAsked

    spec = session.spec
    metrics = None
    if session.first:
        sinks = _sinks(session, session.folder)
        metrics = Metrics(session.folder, spec.training.logging_steps, len(plan), sinks, _peak_memory)
        if resume is not None:
            metrics.restore(resume)
        results.metrics = metrics
    recorder = Recorder(
        Path(arguments.output_dir),
        checkpoints,
        metrics,
        plan.steps_per_epoch,
        session.progress.update,
        results.upload_logs,
    )
    stopper = StopWhenAsked()
    callbacks: list[Any] = [recorder, stopper]
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
        reduction=reduction,
        pad_id=0 if pad is None else pad,
        eval_batch=spec.training.per_device_train_batch_size,
        stop_asked=lambda: session.stop.asked,
        model=model,
        args=arguments,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    recorder.trainer = stopper.trainer = trainer
    return trainer


def _before(session: Session, trainer: Any, results: Results, ranks: Ranks) -> None:
    """Previews and validation loss of the model as it came; kept from the first start on resume."""
    from transformers import set_seed

    known: bool = ranks.gather(results.before_known() if session.first else None)[0]
    if not known:
        loss = None
        if session.spec.validation.active:
            session.progress.update(phase="validation loss before training")
            loss = trainer.validation_loss(trainer.model)
        if session.first:
            session.progress.update(phase="previews before training")
            results.write_before(loss)
        ranks.gather(None)
    session.stop.check()
    # Dropout differs from rank to rank; what came before must not change it.
    set_seed(session.spec.training.seed + session.world.rank)


def _finish(session: Session, trainer: Any, checkpoints: Checkpoints, results: Results, ranks: Ranks) -> str:
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
        trainer._load_from_checkpoint(str(folder))  # what the Trainer itself does for its best model
    digest = ""
    if session.first:
        session.progress.update(phase="previews after training", secondsLeft=None)
        results.write_after(trainer.state, best if use_best else trainer.state.global_step)
        session.progress.update(phase="publishing")
        digest = publish(session.store, "", session.folder, extra={"kind": session.run.kind})
        session.progress.update(phase="finished")
        log.info("Published %s.", session.store.uri)
    ranks.gather(None)
    return digest
