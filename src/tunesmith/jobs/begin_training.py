"""Prepare the training of a FineTuneJob: plan, claim of the output, newest checkpoint, model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.engines.files import model_digest
from tunesmith.engines.load import model_config
from tunesmith.engines.skip_imports import skip_imports, unneeded_packages
from tunesmith.jobs.estimate import tell_estimate
from tunesmith.jobs.exports import Exports
from tunesmith.jobs.first_attempt import first_processes
from tunesmith.jobs.hang_detection import start_hang_detector
from tunesmith.jobs.inputs import Inputs, data_digest, refuse_other_data
from tunesmith.jobs.memory import use_gradient_checkpointing
from tunesmith.jobs.output_lock import PROCESSES, ExistingOutput, claim
from tunesmith.jobs.reading import commits_of, reading_options
from tunesmith.jobs.results import Results
from tunesmith.jobs.session import TrainingSession
from tunesmith.jobs.train import Schedule, Training
from tunesmith.jobs.training_fit import TrainingFit
from tunesmith.jobs.world import World
from tunesmith.names import checkpoint_key
from tunesmith.training.checkpoints import Checkpoints, Ranks
from tunesmith.training.deepspeed.config import tied_to_processes
from tunesmith.training.training_args import eval_every, plan_steps, training_arguments

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def begin_training(session: TrainingSession, inputs: Inputs, found: ExistingOutput) -> Training:
    """Return the training, ready to run. Every rank takes part; rank 0 claims the output."""
    _skip_imports(session, inputs)
    from tunesmith.training.model import build_model, computed_in

    spec, world = session.spec, session.world
    first = first_processes(session.store, found, world.size)
    plan = plan_steps(spec, inputs.prepared.train, world.size, world.rank, first=first)
    fit = TrainingFit(session, plan, inputs.prepared.train)
    every = eval_every(spec, inputs.prepared.train, first)
    dtype = computed_in(spec, inputs.files.base)
    exports = Exports(session.run.name, spec, inputs, dtype, world.node_folder)
    if session.first:
        exports.rehearse()
    folder = world.node_folder / "checkpoints"
    arguments = training_arguments(
        fit.spec, folder, steps=len(plan), every=every, dtype=_name(dtype), world=world.size
    )
    start_hang_detector(session.hang_detector, world)
    ranks = _ranks(world)
    if session.first:
        claim(session.patient, found, _fingerprint(session, inputs, found, first))
    refuse_other_data(ranks.gather(inputs.samples.name))
    checkpoints = _checkpoints(session, ranks)
    resume = _newest(session, checkpoints, folder)
    asked = use_gradient_checkpointing(
        spec, inputs.files.base, tokens=plan.most_tokens, dtype=dtype, ranks=ranks, processes=world.local_size
    )
    on = fit.loads(ranks, asked, checkpoints.known[0] if checkpoints.known else 0)
    if session.first:
        tell_estimate(session, fit.spec, inputs, plan, dtype.itemsize, gradient_checkpointing=on)
    model = build_model(spec, inputs.files.base, inputs.files.adapters, gradient_checkpointing=on)
    session.hang_detector.beat(phase="preparing to train")
    results = Results(session, inputs, model, exports)
    if session.first:
        results.begin(len(plan), resume, first)
    schedule = Schedule(plan, every, arguments, fit)
    with results.recorded():
        return Training(session, inputs, model, schedule, checkpoints, results, resume)


def _skip_imports(session: TrainingSession, inputs: Inputs) -> None:
    """Block imports of packages that this model and method do not need."""
    spec = session.spec
    skip_imports(
        *unneeded_packages(
            model_config(inputs.files.base),
            quantised=spec.method.qlora is not None or "paged" in spec.training.optimizer,
            deepspeed=spec.deepspeed is not None,
        )
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ranks(world: World) -> Ranks:
    import torch.distributed as dist

    def gather(value: Any) -> list[Any]:
        if world.size == 1:
            return [value]
        values: list[Any] = [None] * world.size
        dist.all_gather_object(values, value)
        return values

    return Ranks(world.rank, world.local_rank, world.size, gather)


def _fingerprint(
    session: TrainingSession, inputs: Inputs, found: ExistingOutput, first: int
) -> dict[str, Any]:
    fingerprint = {
        "spec": session.run.result_fields(),
        "data": data_digest(inputs.prepared),
        "model": model_digest(inputs.files),
        PROCESSES: first,
        **commits_of(session.spec, reading_options(session.spec, found)),
    }
    if inputs.evaluations:
        fingerprint["evaluation"] = [prompts.digest for prompts in inputs.evaluations]
    return fingerprint


def _checkpoints(session: TrainingSession, ranks: Ranks) -> Checkpoints:
    return Checkpoints(
        session.store,
        session.spec.training.save_total_limit,
        ranks,
        lambda _: session.hang_detector.beat(phase="resuming"),
        tied_to_processes(session.spec),
    )


def _newest(session: TrainingSession, checkpoints: Checkpoints, folder: Path) -> Path | None:
    """Fetch the newest checkpoint. Return its folder, None if there is none."""
    newest = checkpoints.newest(folder)
    log.info("Starting at the first step." if newest is None else f"Resuming after step {newest}.")
    session.hang_detector.beat(newest or 0, "building the model")
    return None if newest is None else folder / checkpoint_key(newest)
