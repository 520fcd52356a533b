import io
import sys

import pytest
import yaml
from good_manifests import FINE_TUNE, changed
from rich.console import Console
from tests.manifests import parse_text

from tunesmith.local import run
from tunesmith.local.launch import Devices


def devices(gpus):
    said = io.StringIO()
    document = changed(FINE_TUNE, {"spec.resources": {"gpusPerNode": gpus}})
    (job,), _ = parse_text(yaml.safe_dump(document), "job.yaml")
    made = run.LocalRun([job], run.RunOptions(), Console(file=said, width=200))._devices(job)
    return made, said.getvalue()


def test_a_job_without_gpus_starts_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert devices(0) == (Devices(1, 1, gpus=False), "")


@pytest.mark.parametrize(
    ("there", "made", "words"),
    [
        (0, Devices(1, 1, gpus=False), "asks for 2 GPUs; using the CPU with 1 process"),
        (1, Devices(1, 1, gpus=True), "asks for 2 GPUs; using 1 of this machine's 1 GPUs with 1 process"),
        (4, Devices(2, 1, gpus=True), ""),
    ],
)
def test_a_job_gets_of_its_gpus_what_there_is(monkeypatch, there, made, words):
    monkeypatch.setattr(run, "_gpus", lambda: there)
    got, said = devices(2)
    assert got == made
    assert words in said
