"""Metrics in a real MLflow store: which run they are in, each once, and nothing that holds a job up."""

import logging
import time

import pytest

mlflow = pytest.importorskip("mlflow", reason="pip install 'tunesmith[mlflow]'")

from tunesmith.training import mlflow_tracker  # noqa: E402
from tunesmith.training.metrics import AttemptEnd  # noqa: E402
from tunesmith.training.mlflow_tracker import Mlflow, parameters, points  # noqa: E402

SECRET = "sk-never-to-be-seen"
ROWS = [{"step": step, "loss": 1 / step, "epoch": step / 4} for step in (1, 2, 3, 4)]
EVAL = {"step": 2, "epoch": 0.5, "eval_loss": 0.25}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in (*mlflow_tracker._SETTINGS, "MLFLOW_ALLOW_FILE_STORE", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is removed again
        monkeypatch.delenv(name)


def tracker(folder, run_id="a", **changes):
    settings = {
        "experiment": "tests", "name": "mine", "tracking_uri": None, "credentials": {},
        "config": {"datasets": [{"uri": "s3://d"}], "training": {"maxSteps": 4}}, **changes,
    }  # fmt: skip
    return Mlflow(folder, run_id=run_id, **settings)


def recorded(folder):
    client = mlflow.MlflowClient((folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("tests")
    runs = client.search_runs([experiment.experiment_id])
    return client, runs


def losses(client, run, name="train/loss"):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_a_run_has_settings_and_metrics_under_the_names_of_tensorboard(tmp_path):
    sink = tracker(tmp_path)
    for row in [*ROWS[:2], EVAL]:
        sink.write(row)
    sink.close()
    client, (run,) = recorded(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mine"
    assert run.data.params == {"datasets.0.uri": "s3://d", "training.maxSteps": "4"}
    assert losses(client, run) == [(1, 1.0), (2, 0.5)]
    assert losses(client, run, "eval/loss") == [(2, 0.25)]


def test_a_later_attempt_continues_the_run_and_sends_nothing_twice(tmp_path):
    first = tracker(tmp_path)
    for row in [*ROWS[:3], EVAL]:
        first.write(row)
    deadline = time.monotonic() + 60
    while first._sent < 4 and time.monotonic() < deadline:
        time.sleep(0.05)  # it is killed here
    second = tracker(tmp_path)
    for row in [ROWS[0], ROWS[1], EVAL, ROWS[2], ROWS[3]]:  # from a checkpoint of step 2
        second.write(row)
    second.close()
    client, (run,) = recorded(tmp_path)
    assert losses(client, run) == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert losses(client, run, "eval/loss") == [(2, 0.25)]


def test_rows_whose_receipt_came_too_late_are_sent_again_as_the_same_points(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "RETRY_SECONDS", 0.1)
    sent = []

    def too_late(client, run, metrics=(), **more):
        sent.append([(metric.step, metric.timestamp) for metric in metrics if metric.key == "train/loss"])
        if len(sent) == 2:  # the first has the settings
            raise TimeoutError

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", too_late)
    sink = tracker(tmp_path)
    sink.write(ROWS[0])
    deadline = time.monotonic() + 60
    while len(sent) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    sink.close()
    assert sent[1] == sent[2] != []


@pytest.mark.parametrize(
    ("ended", "status"),
    [(AttemptEnd.FAILED, "FAILED"), (AttemptEnd.STOPPED, "KILLED"), (AttemptEnd.FINISHED, "FINISHED")],
)
def test_a_run_ends_as_its_attempt_did_and_goes_on_with_the_next(tmp_path, ended, status):
    first = tracker(tmp_path)
    first.write(ROWS[0])
    first.close(ended)
    assert [run.info.status for run in recorded(tmp_path)[1]] == [status]
    second = tracker(tmp_path)
    second.write(ROWS[0])
    second.write(ROWS[1])
    deadline = time.monotonic() + 60
    while second._sent < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [run.info.status for run in recorded(tmp_path)[1]] == ["RUNNING"]
    second.close()
    client, (run,) = recorded(tmp_path)
    assert run.info.status == "FINISHED"
    assert losses(client, run) == [(1, 1.0), (2, 0.5)]


def test_an_attempt_that_fails_after_its_training_ended_is_not_finished(tmp_path):
    sink = tracker(tmp_path)
    sink.write(ROWS[0])
    sink.close()
    sink.close(AttemptEnd.FAILED)
    client, (run,) = recorded(tmp_path)
    assert run.info.status == "FAILED"
    assert losses(client, run) == [(1, 1.0)]


def test_an_attempt_that_fails_before_its_first_row_has_a_run_too(tmp_path):
    tracker(tmp_path).close(AttemptEnd.FAILED)
    assert [run.info.status for run in recorded(tmp_path)[1]] == ["FAILED"]


def test_another_job_has_another_run(tmp_path):
    for name in ("a", "b"):
        sink = tracker(tmp_path, name)
        sink.write(ROWS[0])
        sink.close()
    assert len(recorded(tmp_path)[1]) == 2


def test_a_server_that_is_away_holds_nothing_up_and_no_secret_is_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "RETRY_SECONDS", 0.1)
    caplog.set_level(logging.INFO)
    away = f"http://user:{SECRET}@127.0.0.1:9"
    sink = tracker(tmp_path, tracking_uri=away, credentials={"MLFLOW_TRACKING_TOKEN": SECRET})
    began = time.monotonic()
    for row in ROWS:
        sink.write(row)
    assert time.monotonic() - began < 1
    sink.close()
    assert "4 of 4 rows were not sent to MLflow" in caplog.text
    assert caplog.text.count("cannot be used") == 1
    assert SECRET not in caplog.text


def test_numbers_that_are_none_are_left_out():
    row = {"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "tokens": 5}
    assert points(row) == {"train/tokens": 5.0}


def test_settings_have_names_that_mlflow_takes():
    config = {"a": [{"b c": None, "d": {}}, {"e[0]": True}], "long": "x" * 9000}
    found = parameters(config)
    assert found["a.0.d"] == "{}"
    assert found["a.1.e_0_"] == "True"
    assert len(found["long"]) == 6000
