"""Experiment tracking of a FineTuneJob's metrics, in addition to metrics.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.names import LOGS
from tunesmith.training.metrics import Sink

if TYPE_CHECKING:
    from tunesmith.jobs.session import TrainingSession


def open_sinks(session: TrainingSession, folder: Path) -> list[Sink]:
    """Return the manifest's trackers: TensorBoard files below `folder`, Weights & Biases, MLflow."""
    from tunesmith.jobs.secrets import mlflow_credentials, secret
    from tunesmith.training.trackers import TensorBoard, Wandb

    tracking = session.spec.tracking
    # What replaces an output is a run of its own: trackers ignore steps that a run already has.
    run_id = f"{session.store.uri} {session.world.job_uid}"
    sinks: list[Sink] = []
    if tracking.tensorboard:
        sinks.append(TensorBoard(folder / LOGS))
    if tracking.wandb:
        sinks.append(
            Wandb(
                folder / LOGS,
                run_id=run_id,
                project=tracking.wandb.project,
                name=tracking.wandb.run_name or session.run.name,
                entity=tracking.wandb.entity,
                base_url=tracking.wandb.base_url,
                key=secret(tracking.wandb.api_key_secret_ref),
                config=session.run.result_fields(),
            )
        )
    if tracking.mlflow:
        from tunesmith.training.mlflow_tracker import Mlflow

        sinks.append(
            Mlflow(
                folder / LOGS,
                run_id=run_id,
                experiment=tracking.mlflow.experiment,
                name=tracking.mlflow.run_name or session.run.name,
                tracking_uri=tracking.mlflow.tracking_uri,
                credentials=mlflow_credentials(session.spec),
                config=session.run.result_fields(),
            )
        )
    return sinks


def usage() -> dict[str, int]:
    """Return the peak memory so far, in bytes, and on a GPU how many kernels were compiled.

    The memory is the GPU's, or the process's on a CPU.
    """
    import resource

    import torch

    from tunesmith.training.tree.flex import kernels_compiled

    if torch.cuda.is_available():
        memory = int(torch.cuda.max_memory_allocated())
        return {"memory_bytes": memory, "kernels_compiled": kernels_compiled()}
    return {"memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
