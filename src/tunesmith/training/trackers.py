"""Trackers of experiments that are fed with the lines of metrics.jsonl: TensorBoard and Weights & Biases.

MLflow is in `mlflow_tracker`. Does not depend on how the lines come about.
"""

from __future__ import annotations

import hashlib
import logging
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tunesmith.api.common import WANDB
from tunesmith.artifacts.opening import check_endpoint
from tunesmith.training.metrics import AttemptEnd, MetricsRow

log = logging.getLogger(__name__)


class TensorBoard:
    """Event files under logs/; a resumed run writes one whole new file."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, row: MetricsRow) -> None:
        """Write one scalar per number."""
        for key, value in _numbers(row).items():
            group = "eval" if key == "eval_loss" else "train"
            self._writer.add_scalar(f"{group}/{key.removeprefix('eval_')}", value, row["step"])

    def flush(self) -> None:
        """Write everything so far to the file."""
        self._writer.flush()

    def close(self, ended: AttemptEnd = AttemptEnd.FINISHED) -> None:
        """Write everything and close the file."""
        self._writer.close()


class Wandb:
    """One run of Weights & Biases.

    Without `key` it uses `WANDB_API_KEY`, else what `wandb login` has stored on this machine; without any,
    the run is recorded offline, under the folder. `run_id` makes a later attempt continue the same run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        project: str,
        name: str,
        entity: str | None,
        base_url: str | None = None,
        key: str | None,
        config: Mapping[str, Any],
    ) -> None:
        import wandb

        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        if base_url:
            os.environ["WANDB_BASE_URL"] = base_url
        check_endpoint(os.environ.get("WANDB_BASE_URL") or WANDB)
        if key:
            os.environ["WANDB_API_KEY"] = key  # `wandb.login` would write it to a file
        known = bool(os.environ.get("WANDB_API_KEY")) or _logged_in(wandb.setup().settings.base_url)
        settings: dict[str, Any] = {
            "project": project,
            "name": name,
            "entity": entity,
            "id": hashlib.sha256(run_id.encode()).hexdigest()[:16],
            "resume": "allow",
            "dir": str(folder),
            "config": dict(config),
        }
        online = known and os.environ.get("WANDB_MODE", "online") == "online"
        try:
            self._run = wandb.init(**settings, mode="online" if online else "offline")
        except wandb.errors.Error as error:
            log.warning("Weights & Biases cannot be reached; the run is recorded offline: %s", error)
            self._run = wandb.init(**settings, mode="offline")

    def write(self, row: MetricsRow) -> None:
        """Log one point per row."""
        self._run.log(_numbers(row), step=row["step"])

    def close(self, ended: AttemptEnd = AttemptEnd.FINISHED) -> None:
        """Send or write everything; nothing writes to the folder afterwards.

        The run is `finished`, `failed` or, if another attempt continues it, `preempted`.
        """
        import wandb

        if self._closed:
            return
        self._closed = True
        if ended is AttemptEnd.STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if ended is AttemptEnd.FINISHED else 1)
        wandb.teardown()  # its process writes logs until it exits


def _logged_in(base_url: str) -> bool:
    """Return whether `wandb login` has stored a key for the server on this machine, in the file it writes."""
    path = Path(os.environ.get("NETRC") or Path("~/.netrc").expanduser())
    try:
        return netrc.netrc(path).authenticators(urlsplit(base_url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _numbers(row: MetricsRow) -> dict[str, float]:
    return {key: value for key, value in row.items() if key != "step"}
