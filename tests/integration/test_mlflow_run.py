"""Real jobs and a real MLflow store: one run per job, each point once, and how its attempts ended."""

from __future__ import annotations

import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kills import started, wait_for_checkpoint
from tests.support import chat_records, finetune, logs_of, metrics_of, run_job, write_jsonl

mlflow = pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")
pytestmark = pytest.mark.slow
STEPS, PATIENCE = 200, 300


def document(home: Path, model: Path, **training: Any) -> dict[str, Any]:
    return finetune(
        "job",
        model=model,
        data=write_jsonl(home / "train.jsonl", chat_records(24)),
        output=home / "out",
        method={"lora": {"r": 4, "alpha": 8, "dropout": 0.0}},
        training={"maxSteps": STEPS, "saveSteps": 10, "evalSteps": 50, **training},
        validation={"ratio": 0.2},
        tracking={"mlflow": {"experiment": "tests"}, "tensorboard": False},
    )


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Points every job at a database as a server has it, or at files without what that needs."""
    database = find_spec("sqlalchemy") is not None
    uri = f"sqlite:///{tmp_path}/mlflow.db" if database else (tmp_path / "mlruns").as_uri()
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_ALLOW_FILE_STORE": "true"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    mlflow.MlflowClient(uri).create_experiment("tests")  # making the database takes a while
    return variables


def only_run(env: dict[str, str]) -> tuple[Any, Any]:
    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    return client, run


def wait_for_points(env: dict[str, str], least: int) -> None:
    """Wait until the run has points up to a step: importing MLflow takes longer than the first steps."""
    client = mlflow.MlflowClient(env["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("tests").experiment_id
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for run in client.search_runs([experiment], "tags.`tunesmith.train_step` != ''"):
            if int(run.data.tags["tunesmith.train_step"]) >= least:
                return
        time.sleep(0.1)
    raise AssertionError(f"no point of step {least}")


def test_two_processes_are_stopped_and_resumed_in_one_run(
    tmp_path: Path, tiny_model: Path, env: dict[str, str]
) -> None:
    job = document(tmp_path, tiny_model)
    with started(tmp_path, job, "--processes", "2", env=env) as going:
        wait_for_checkpoint(going, 10, PATIENCE)
        wait_for_points(env, 1)
        going.tell_launcher(signal.SIGTERM)
        going.ended()
    assert only_run(env)[1].info.status == "KILLED"
    ended = run_job(tmp_path, job, "--processes", "2", env=env)
    assert ended.code == 0, ended.text + logs_of(tmp_path)
    client, run = only_run(env)
    assert run.info.status == "FINISHED"
    for name, key in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        assert sorted(points) == [
            (row["step"], pytest.approx(row[key])) for row in metrics_of(tmp_path / "out") if key in row
        ]


def test_a_training_that_fails_is_no_run_in_progress(
    tmp_path: Path, tiny_model: Path, env: dict[str, str]
) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(tiny_model, tmp_path / "too-large")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= 1e38  # so that no loss is a number
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    job = document(tmp_path, model)
    job["spec"]["method"] = {"full": {}}
    ended = run_job(tmp_path, job, env=env)
    assert ended.code == 1, ended.text
    assert "Diverged" in ended.text
    assert only_run(env)[1].info.status == "FAILED"
