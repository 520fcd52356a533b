"""MLflow, which receives a run's metrics and never holds it up.

Rows are sent by a thread of its own. A server that is away or refuses is reported in the log once, and tried
again; what could not be sent by the end is still in metrics.jsonl.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.artifacts.opening import check_endpoint
from tunesmith.redaction import without_secrets
from tunesmith.training.metrics import CLOSE_SECONDS, STOP_SECONDS, AttemptEnd, MetricsRow

log = logging.getLogger(__name__)
ROWS_AT_ONCE, PARAMETERS_AT_ONCE = 100, 100
"""Limits of a request: a thousand metrics, of which a row has up to ten, and a hundred parameters."""
LONGEST_PARAMETER = 6000
RETRY_SECONDS = 30.0
_ODD = re.compile(r"[^\w.\-/]")
_ID = "tunesmith.id"
_GROUPS = ("train", "eval")
_STATUS = {AttemptEnd.FINISHED: "FINISHED", AttemptEnd.FAILED: "FAILED", AttemptEnd.STOPPED: "KILLED"}
# Not the library's defaults: minutes of retries, statistics for its makers, and redirects to anywhere.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
}


class Mlflow:
    """One run of MLflow. `run_id` makes a later attempt continue the same run, where its rows ended.

    Without `tracking_uri` it uses MLFLOW_TRACKING_URI; without both, files under `folder`. `credentials` are
    environment variables of MLflow. Raises PermanentError for a server that may not be contacted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        experiment: str,
        name: str,
        tracking_uri: str | None,
        credentials: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        if uri.startswith(("http://", "https://")):
            check_endpoint(uri)
        if not uri:
            uri = (folder / "mlruns").absolute().as_uri()
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # else it takes a database only
        os.environ.update({**_SETTINGS, **credentials})
        self._uri, self._experiment, self._name = uri, experiment, name
        self._id, self._config = hashlib.sha256(run_id.encode()).hexdigest()[:16], config
        # With the time in milliseconds: a point that is sent again, since an answer came too late, is the
        # same point to the server's database, and is there once.
        self._rows: list[tuple[MetricsRow, int]] = []
        self._sent, self._run = 0, ""
        self._last = dict.fromkeys(_GROUPS, -1)  # steps that the run has
        self._client: Any = None
        self._changed, self._ending = threading.Event(), threading.Event()
        self._error, self._ended = "", AttemptEnd.FINISHED
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._keep_sending, name="mlflow", daemon=True)
        thread.start()
        return thread

    def write(self, row: MetricsRow) -> None:
        """Have a row sent."""
        self._rows.append((row, round(time.time() * 1000)))
        self._changed.set()

    def close(self, ended: AttemptEnd = AttemptEnd.FINISHED) -> None:
        """Send what is left and how the attempt ended, for as long as a server that answers needs at most.

        The run is FINISHED, FAILED or, if another attempt continues it, KILLED until then.
        """
        self._ended = ended
        self._ending.set()
        self._changed.set()
        if not self._thread.is_alive():  # it finished, and failed after that
            self._thread = self._start()
        self._thread.join(STOP_SECONDS if ended is AttemptEnd.STOPPED else CLOSE_SECONDS)
        missing = len(self._rows) - self._sent
        if missing > 0:
            log.warning(
                "%d of %d rows were not sent to MLflow: %s. They are in metrics.jsonl.",
                missing, len(self._rows), self._error or "the server is too slow",
            )  # fmt: skip

    def _keep_sending(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            ending = self._ending.is_set()
            try:
                self._send(ending)
                self._error = ""
            except Exception as error:  # noqa: BLE001 - whatever its many libraries raise: no reason to end a job
                self._failed(error)
                if not ending:
                    self._ending.wait(RETRY_SECONDS)
                    self._changed.set()
                    continue
            if ending:
                return

    def _failed(self, error: Exception) -> None:
        said = " ".join(without_secrets(str(error)).split())[:300]
        if not self._error:
            log.warning("MLflow at %s cannot be used; trying again: %s", without_secrets(self._uri), said)
        self._error = said

    def _send(self, ending: bool) -> None:
        self._open()
        while self._sent < len(self._rows):
            rows = self._rows[self._sent : self._sent + ROWS_AT_ONCE]
            new = [(row, at) for row, at in rows if row["step"] > self._last[group_of(row)]]
            last = self._last | {group_of(row): row["step"] for row, _ in new}
            if new:
                tags = {_tag(name): str(step) for name, step in last.items()}
                self._batch(self._run, metrics=new, tags=tags)
            self._sent, self._last = self._sent + len(rows), last
        if ending:
            self._client.set_terminated(self._run, _STATUS[self._ended])

    def _open(self) -> None:
        """Find the run of an earlier attempt, or create one."""
        if self._run:
            return
        from mlflow import MlflowClient

        self._client = client = MlflowClient(tracking_uri=self._uri)
        known = client.get_experiment_by_name(self._experiment)
        experiment = client.create_experiment(self._experiment) if known is None else known.experiment_id
        found = client.search_runs([experiment], f"tags.`{_ID}` = '{self._id}'", max_results=1)
        if found:
            tags = found[0].data.tags
            self._last = {name: int(tags.get(_tag(name), -1)) for name in _GROUPS}
            client.update_run(found[0].info.run_id, status="RUNNING")
        run = found[0] if found else client.create_run(experiment, run_name=self._name, tags={_ID: self._id})
        names = [] if run.data.params else list(parameters(self._config).items())
        for start in range(0, len(names), PARAMETERS_AT_ONCE):
            self._batch(run.info.run_id, params=dict(names[start : start + PARAMETERS_AT_ONCE]))
        self._run = run.info.run_id

    def _batch(
        self,
        run: str,
        metrics: Sequence[tuple[MetricsRow, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run,
            metrics=[
                Metric(name, value, at, row["step"])
                for row, at in metrics
                for name, value in points(row).items()
            ],
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
        )


def points(row: MetricsRow) -> dict[str, float]:
    """Return a row's finite numbers, under the names that TensorBoard has too."""
    return {
        f"{group_of(row)}/{key.removeprefix('eval_')}": float(value)
        for key, value in row.items()
        if key != "step" and math.isfinite(value)
    }


def group_of(row: MetricsRow) -> str:
    """Return whether a row is of training or of a validation."""
    return "eval" if "eval_loss" in row else "train"


def _tag(group: str) -> str:
    return f"tunesmith.{group}_step"


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings by their dotted paths, `datasets.0.uri`: few other characters are allowed."""
    return {_ODD.sub("_", name): value for name, value in _flat(config, "")}


def _flat(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        named = [(str(key), each) for key, each in value.items()]
    elif isinstance(value, list) and value:
        named = [(str(number), each) for number, each in enumerate(value)]
    else:
        return [] if value is None else [(path, str(value)[:LONGEST_PARAMETER])]
    return [pair for name, each in named for pair in _flat(each, f"{path}.{name}" if path else name)]
