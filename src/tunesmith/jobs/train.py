"""The training of a FineTuneJob: the trainer, its callbacks, and the result."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.artifacts.publish import publish
from tunesmith.errors import StoppedError
from tunesmith.jobs.evaluate import Evaluations
from tunesmith.jobs.evaluate_only import checker
from tunesmith.jobs.inputs import Inputs
from tunesmith.jobs.memory_notes import FINISHING
from tunesmith.jobs.models import trained_models
from tunesmith.jobs.results import Results
from tunesmith.jobs.session import TrainingSession
from tunesmith.jobs.training_fit import TrainingFit
from tunesmith.names import FINAL_MODEL
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.disk import full_disk_explained
from tunesmith.training.health import Health
from tunesmith.training.sampler import StepPlan

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.uploads import Uploads

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a run, the interval of validations, and how it fits into memory."""

    plan: StepPlan
    eval_every: int
    arguments: TrainingArguments
    fit: TrainingFit


class Training:
    """One run of the trainer, from the first step or a checkpoint to the published model, on every rank."""

    def __init__(
        self,
        session: TrainingSession,
        inputs: Inputs,
        model: Any,
        schedule: Schedule,
        checkpoints: Checkpoints,
        results: Results,
        resume: Path | None,
    ) -> None:
        self._session, self._inputs, self._results = session, inputs, results
        self._checkpoints, self._ranks, self._resume = checkpoints, checkpoints.ranks, resume
        self._fit = schedule.fit
        self._known_before: bool = self._ranks.gather(results.before_known() if session.first else None)[0]
        uploads = self._uploads()
        health = Health(model.config.get_text_config().vocab_size, session.store.uri, uploads.settled)
        if resume is not None:
            health.restore(resume)
        self._trainer = self._build(model, schedule, health)
        self._add_callbacks(schedule, uploads, health)

    def run(self) -> str:
        """Train, write and publish everything. Returns the manifest's digest, "" on other ranks than 0."""
        with self._results.recorded():
            self.train()
            return self.finish()

    def train(self) -> None:
        """Train to the last step. Raises StoppedError if the job was asked to stop before it."""
        with full_disk_explained(Path(self._trainer.args.output_dir)), self._fit.explained(self._trainer):
            self._trainer.go_on(self._resume)
        if self._trainer.stopping:
            step = self._trainer.state.global_step
            raise StoppedError(
                f"Stopped after step {step}, which is saved. Run the job again to resume from there."
            )

    def finish(self) -> str:
        """Load the best weights if requested, then write and publish everything.

        Returns the digest of the published manifest, "" on other ranks than 0.
        """
        if self._session.first:
            self._session.notes.begin(FINISHING)
        used_step = self._load_best()
        self._enter("previews after training", secondsLeft=None)
        replies, weights = self._results.previews(), self._trainer.whole_weights()
        if self._session.first:
            self._results.show("after training", replies)
            self._results.save_model(weights)
        del weights
        evaluations = self._evaluations()
        digest = ""
        if self._session.first:
            evaluated = evaluations.run() if evaluations else []
            self._results.write_after(self._trainer.state, used_step, replies, evaluated)
            digest = self._publish()
            if evaluations:
                evaluations.forget()
            if self._session.spec.export is None:
                self._session.progress.update(phase="finished")
            log.info("Published %s.", self._session.store.uri)
        self._ranks.gather(None)
        return digest

    # --- Parts of the trainer.

    def _uploads(self) -> Uploads:
        from tunesmith.training.pending_upload import UploadHooks
        from tunesmith.training.uploads import Uploads

        session = self._session
        hooks = UploadHooks(
            after=self._results.upload_logs,
            seconds_left=session.stop.seconds_left,
            beat=lambda: session.hang_detector.beat(phase="waiting for an upload"),
            tell=session.progress.teller("upload of a checkpoint"),
        )
        return Uploads(self._checkpoints, hooks)

    def _build(self, model: Any, schedule: Schedule, health: Health) -> StepTrainer:
        from transformers import EarlyStoppingCallback
        from transformers.trainer_callback import PrinterCallback

        from tunesmith.training.steps import StepDataset
        from tunesmith.training.trainer import StepTrainer

        session, prepared = self._session, self._inputs.prepared
        pad = self._inputs.tokenizer.tokenizer.pad_token_id
        reduction, early = session.spec.training.loss_reduction, session.spec.training.early_stopping
        trainer = StepTrainer(
            steps=StepDataset(prepared.train, schedule.plan, reduction, 0 if pad is None else pad),
            validation=prepared.validation,
            stop_asked=lambda: session.stop.asked,
            health=health,
            beat=session.hang_detector.beat,
            model=model,
            args=schedule.arguments,
            callbacks=[EarlyStoppingCallback(early.patience, early.threshold)] if early else [],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _add_callbacks(self, schedule: Schedule, uploads: Uploads, health: Health) -> None:
        from tunesmith.training.callbacks import AtBegin, EvaluateAt, StopWhenAsked
        from tunesmith.training.recorder import Recorder

        session, trainer = self._session, self._trainer
        recorder = Recorder(
            trainer,
            uploads,
            self._results.metrics,
            schedule.plan.steps_per_epoch,
            session.progress.update,
            session.hang_detector,
            health,
            self._results.complete_checkpoint,
        )
        callbacks = [AtBegin(self._before_first_step), recorder, StopWhenAsked(trainer)]
        if session.spec.validation.active:
            callbacks.append(EvaluateAt(schedule.eval_every))
        for callback in callbacks:
            trainer.add_callback(callback)

    # --- Before the first step.

    def _before_first_step(self) -> None:
        """Compute previews and validation loss before training, unless they are known from the first start.

        Everything is on its device by now: sharded weights cannot be used before.
        """
        from transformers import set_seed

        session = self._session
        self._check_tree()
        self._results.trained_with(self._trainer.state.global_step)
        self._fit.trains(self._ranks)
        if not self._known_before:
            loss = self._validation_loss()
            self._enter("previews before training")
            replies = self._results.previews()
            if session.first:
                self._results.write_before(loss, replies)
            self._ranks.gather(None)
        session.stop.check()
        # Dropout differs by rank; what came before must not change it.
        set_seed(session.spec.training.seed + session.world.rank)

    def _check_tree(self) -> None:
        """Try tree packing if requested; the outcome is in log and metrics."""
        if self._session.spec.training.packing != "tree":
            return
        check = self._trainer.check_tree(self._session.spec.model.attention)
        if not check.used:
            log.warning(
                "Tree packing is off: %s. Samples are padded instead, with the same loss.", check.reason
            )
        metrics = self._results.metrics
        if metrics is not None and not metrics.rows:
            metrics.tree_packing(check.used, check.difference)

    def _validation_loss(self) -> float | None:
        if not self._session.spec.validation.active:
            return None
        self._session.progress.update(phase="validation loss before training")
        return self._trainer.validate(self._trainer.model_wrapped).loss

    # --- After the last step.

    def _enter(self, phase: str, **more: Any) -> None:
        """Begin a phase, for the hang detector and the progress."""
        self._session.hang_detector.beat(phase=phase)
        self._session.progress.update(phase=phase, **more)

    def _load_best(self) -> int:
        """Load the best weights if early stopping selects others. Return the step of the weights in use."""
        state, world = self._trainer.state, self._session.world
        best: int | None = state.best_global_step
        if self._session.spec.training.early_stopping is None or best in (None, state.global_step):
            return int(state.global_step)
        assert best is not None
        folder = world.node_folder / "best"
        if world.local_rank == 0:
            self._checkpoints.fetch(best, folder)
        self._ranks.gather(None)
        self._trainer.load_weights(folder)
        if self._results.metrics is not None:
            self._results.metrics.restore_validation(folder)
        return best

    def _evaluations(self) -> Evaluations | None:
        """Return what rank 0 has to evaluate, once all ranks have freed training's device memory."""
        session, inputs = self._session, self._inputs
        if not session.spec.evaluation and session.spec.export is None:
            return None
        from tunesmith.training.free_memory import free_trainer

        free_trainer(self._trainer)
        if not session.first or not session.spec.evaluation:
            return None
        final, today = session.folder / FINAL_MODEL, inputs.tokenizer.today
        models = trained_models(session.spec, inputs.files, final, inputs.evaluations, today)
        return Evaluations(session, [*models, *inputs.compared], checker(session), subject=len(models) - 1)

    def _publish(self) -> str:
        session = self._session
        session.progress.update(phase="publishing")
        return publish(
            session.patient,
            "",
            session.folder,
            extra={"kind": session.run.kind},
            progress=lambda _: session.hang_detector.beat(phase="publishing"),
        )
