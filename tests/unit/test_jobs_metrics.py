"""Which numbers of a job Prometheus gets, and by which address."""

import re
import sys
import urllib.request
from types import SimpleNamespace

import pytest
from tests.cases import each

from tunesmith.jobs.metrics import METRICS, exposition, gpu_memory
from tunesmith.jobs.progress import Progress, serve

VALUES = {"phase": "training", "step": 12, "loss": 0.25, "spentUsd": 1e-7, "text": "12/40"}


def test_numbers_are_gauges_with_help():
    assert exposition(VALUES).splitlines()[:3] == [
        "# HELP tunesmith_job_step Optimizer steps, prompts or dialogues done",
        "# TYPE tunesmith_job_step gauge",
        "tunesmith_job_step 12",
    ]
    assert samples(exposition(VALUES)) == {
        "tunesmith_job_step": 12,
        "tunesmith_job_loss": 0.25,
        "tunesmith_job_spent_usd": 1e-7,
    }


def samples(text):
    """As Prometheus reads them."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = parser.text_string_to_metric_families(text)
    return {one.name: one.value for family in families for one in family.samples if not one.labels}


@each("value", [float("nan"), float("inf"), "s3cr3t", None, True, [1], {"a": 1}])
def test_what_is_no_finite_number_is_left_out(value):
    assert exposition({"loss": value, "message": "s3cr3t", "key": 5}) == ""


def test_names_are_valid_and_different():
    names = [metric.name for metric in METRICS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"tunesmith_job_[a-z_]+", name) for name in names)


def cuda(monkeypatch, *, used, error=None):
    """Stands for torch.cuda in a process that computes on no GPU: memory in use by GPU."""

    def device_memory_used(number):
        if error is not None:
            raise error
        return used[number]

    stand_in = SimpleNamespace(
        is_initialized=lambda: False,
        device_count=lambda: len(used),
        device_memory_used=device_memory_used,
    )
    monkeypatch.setitem(sys.modules, "torch.cuda", stand_in)


def test_the_memory_of_gpus_on_which_others_compute_for_this_process(monkeypatch):
    cuda(monkeypatch, used=[7, 9, 8])
    assert gpu_memory() == {"gpuMemoryBytes": 9}


@each("error", [ModuleNotFoundError("pynvml"), RuntimeError("no driver")])
def test_memory_that_nothing_tells_is_left_out(monkeypatch, error):
    cuda(monkeypatch, used=[7], error=error)
    assert gpu_memory() == {}


def test_they_are_served_beside_the_progress():
    progress = Progress()
    progress.update(**VALUES)
    server = serve(progress, "127.0.0.1", 0)
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.read().decode() == exposition(VALUES)
    finally:
        server.shutdown()
        server.server_close()


def test_memory_is_of_a_gpu_that_is_in_use(monkeypatch):
    cuda = SimpleNamespace(is_initialized=lambda: True, mem_get_info=lambda: (2, 10))
    monkeypatch.setitem(sys.modules, "torch.cuda", cuda)
    assert gpu_memory() == {"gpuMemoryBytes": 8}
    cuda.is_initialized = lambda: False
    assert gpu_memory() == {}
    monkeypatch.setitem(sys.modules, "torch.cuda", SimpleNamespace())  # while torch is being imported
    assert gpu_memory() == {}
    monkeypatch.delitem(sys.modules, "torch.cuda")
    assert gpu_memory() == {}
