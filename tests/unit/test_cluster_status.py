"""A job's status on a cluster, in words."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml
from tests.cases import each

from tunesmith.errors import TemporaryError, UsageError
from tunesmith.local.cluster_status import read_jobs, words_of

RUNNING = {
    "kind": "FineTuneJob",
    "metadata": {"name": "sft", "namespace": "team-a"},
    "status": {
        "phase": "Running", "reason": "Running", "message": "Attempt 2 is\nrunning.",
        "attempts": 2, "launches": 3,
        "backend": "TrainJob", "startTime": "2026-11-29T07:10:34Z",
        "progress": {"text": "12/60", "eta": "3m", "loss": 1.25, "tokensPerSecond": 900, "secondsLeft": 180},
        "conditions": [
            {"type": "Running", "status": "True", "message": "x"},
            {"type": "Degraded", "status": "True", "message": "no S3", "lastTransitionTime": "07:11"},
            {"type": "ProgressUnreachable", "status": "False", "message": "y"},
        ],
    },
}  # fmt: skip


def said(job):
    return [f"{label} {text}" for label, text in words_of(job)]


def test_a_running_job_says_what_it_does_and_what_is_in_the_way():
    assert said(RUNNING) == [
        "Job FineTuneJob team-a/sft",
        "State Running: Running",
        "Says Attempt 2 is running.",
        "Progress 12/60  loss 1.2500  900 tok/s  3m left",
        "Attempts 2, 3 launches of a TrainJob",
        "Started 2026-11-29T07:10:34Z",
        "Degraded since 07:11: no S3",
    ]


def test_a_finished_job_says_where_its_result_is():
    status = {
        "phase": "Succeeded", "progress": {"text": "60/60", "eta": "0s", "evaluations": [
            {"name": "sums", "base": 0.25, "tuned": 0.5},
            {"name": "more", "models": [{"name": "x", "accuracy": 1.0}]},
        ]},
        "outputs": {"uri": "s3://m/x", "model": "s3://m/x/final_model", "report": "s3://m/x/report.html"},
    }  # fmt: skip
    lines = said({**RUNNING, "status": status})
    assert "Evaluated sums: base 25.0%, tuned 50.0%" in lines
    assert "Evaluated more: x 100.0%" in lines
    assert lines[-3:] == ["Model s3://m/x/final_model", "Report s3://m/x/report.html", "Output s3://m/x"]
    assert not any("left" in line for line in lines)


@each("job", [{}, {"metadata": {}, "status": None}, {**RUNNING, "status": {"progress": []}}])
def test_one_that_no_operator_has_seen_says_so(job):
    assert "State not yet seen by an operator" in said(job)


@contextmanager
def cluster(folder, monkeypatch, answers):
    """A kubeconfig and a server that answers by path: with an object, or with a status code."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = answers.get(self.path.partition("?")[0], 404)
            body = json.dumps(found if isinstance(found, dict) else {"kind": "Status"}).encode()
            self.send_response(200 if isinstance(found, dict) else found)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    named = {"cluster": "c", "user": "u"}
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": named}], "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
        ],
    }  # fmt: skip
    (folder / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "config"))
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def path_of(plural, name="sft"):
    return f"/apis/tunesmith.dev/v1alpha1/namespaces/team-a/{plural}/{name}"


def test_all_kinds_are_asked_for_the_name(tmp_path, monkeypatch):
    answers = {path_of("finetunejobs"): RUNNING, path_of("dialoguegenjobs"): RUNNING}
    with cluster(tmp_path, monkeypatch, answers):
        assert len(read_jobs("team-a", "sft")) == 2
        assert len(read_jobs("team-a", "ftj/sft")) == 1
        assert read_jobs("team-a", "other") == []


def test_who_may_not_look_is_told_so(tmp_path, monkeypatch):
    with (
        cluster(tmp_path, monkeypatch, {path_of("finetunejobs"): 403}),
        pytest.raises(UsageError, match="refuses to show finetunejobs in team-a: 403"),
    ):
        read_jobs("team-a", "sft")


def test_a_cluster_that_is_away_may_be_back_later(tmp_path, monkeypatch):
    with cluster(tmp_path, monkeypatch, {}) as server:
        server.shutdown()
        server.server_close()
        with pytest.raises(TemporaryError, match="does not answer"):
            read_jobs("team-a", "sft")


def test_without_a_kubeconfig_it_says_what_to_set(tmp_path, monkeypatch):
    nowhere = str(tmp_path / "none")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", nowhere)
    with pytest.raises(UsageError, match="Set KUBECONFIG"):
        read_jobs("team-a", "sft")
