"""`tunesmith run` as people call it: order, failures, exit codes, Ctrl-C. A job is a step of a tiny model."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import (
    Ended,
    chat_records,
    finetune,
    logs_of,
    run_cli,
    start_cli,
    write_jsonl,
    write_manifest,
)

ONE_STEP = {"maxSteps": 1, "saveSteps": 1, "gradientAccumulationSteps": 1, "perDeviceTrainBatchSize": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_jsonl(folder / "data.jsonl", chat_records(4))
    return folder


def job(name: str, home: Path, model: Path | str, data: str = "data.jsonl", **spec: Any) -> dict[str, Any]:
    """A job of one step whose result others may start from."""
    full: dict[str, Any] = {"method": {"full": {}}, **spec}
    return finetune(
        name, model=model, data=home / data, output=home / f"out-{name}", training=ONE_STEP, **full
    )


def after(name: str, other: str, home: Path) -> dict[str, Any]:
    document = job(name, home, "hf://to/replace")
    document["spec"]["model"] = {"fromJob": {"kind": "FineTuneJob", "name": other}}
    return document


# --- Several jobs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordered(home: Path, tiny_model: Path) -> Ended:
    """The second job of the file is the first to run; it wishes for GPUs."""
    wish = {"resources": {"nodes": 2, "gpusPerNode": 8}}
    write_manifest(home / "m", after("second", "first", home), job("first", home, tiny_model, **wish))
    (home / "tmp").mkdir()
    return run_cli("run", "-f", "m/second.yaml", folder=home, env={"TMPDIR": str(home / "tmp")}, warm=False)


def test_jobs_run_in_the_order_of_their_references(ordered: Ended, home: Path) -> None:
    assert ordered.code == 0, ordered.text + logs_of(home)
    first, second = (ordered.text.index(f"✔ FineTuneJob {name} succeeded") for name in ("first", "second"))
    assert first < second
    run = json.loads((home / ".tunesmith/jobs/default/second-ftj/run.json").read_text())
    assert run["spec"]["model"]["uri"] == f"file://{home}/out-first/final_model"


def test_a_wish_for_gpus_is_answered(ordered: Ended) -> None:
    assert "FineTuneJob first asks for 2 nodes of 8 GPUs; using the CPU with 1 process\n" in ordered.text


def test_the_end_says_where_things_are(ordered: Ended, home: Path) -> None:
    model = ".tunesmith/jobs/default/first-ftj/output/final_model"
    assert f"Model    {model}\n" in ordered.text
    assert f"Try it   tunesmith chat --model {model}\n" in ordered.text
    assert (home / model / "model.safetensors").is_file()
    assert "s3://" not in ordered.text
    assert not (home / ".tunesmith/s3").exists()


def test_nothing_is_left_for_others_to_delete(ordered: Ended, home: Path) -> None:
    assert list((home / "tmp").iterdir()) == []


@pytest.fixture(scope="module")
def failing(home: Path, tiny_model: Path) -> Path:
    """The first job has no data, the second waits for it, the third is on its own."""
    bad = job("bad", home, tiny_model, data="gone.jsonl")
    write_manifest(home / "f", bad, after("waits", "bad", home), job("alone", home, tiny_model))
    return home / "f/bad.yaml"


def test_a_failing_job_stops_the_rest(failing: Path, home: Path) -> None:
    ended = run_cli("run", "-f", failing, folder=home)
    assert ended.code == 2, ended.text
    lines = ended.text.splitlines()
    (failed,) = [line for line in lines if line.startswith("✘")]
    assert failed.startswith("✘ FineTuneJob bad failed: StorageRefused: ")
    assert "gone.jsonl" in failed
    log = ".tunesmith/jobs/default/bad-ftj/logs/rank-0.log"
    assert f"log: {log}" in lines
    assert "gone.jsonl" in (home / log).read_text()
    assert lines[-1] == (
        "not started: FineTuneJob waits, FineTuneJob alone "
        "(--keep-going runs what does not depend on a failed job)"
    )
    assert not (home / "out-alone").exists()


def test_keep_going_runs_what_does_not_depend_on_it(failing: Path, home: Path) -> None:
    ended = run_cli("run", "-f", failing, "--keep-going", folder=home)
    assert ended.code == 2, ended.text
    assert "✘ FineTuneJob waits failed: DependencyFailed: FineTuneJob bad failed\n" in ended.text
    assert "✔ FineTuneJob alone succeeded\n" in ended.text
    assert "\n1 of 3 jobs succeeded\n" in ended.text
    assert not (home / ".tunesmith/jobs/default/waits-ftj/logs").exists()


@pytest.mark.soak
def test_what_may_work_later_ends_with_1(home: Path, tiny_model: Path) -> None:
    document = job("later", home, tiny_model)
    document["spec"]["datasets"][0]["uri"] = "s3://data/x.jsonl"
    aws = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ended = run_cli("run", "-f", write_manifest(home, document), folder=home, env=aws)
    assert ended.code == 1, ended.text
    assert ended.text.startswith("s3:// is http://127.0.0.1:9 (AWS_ACCESS_KEY_ID is set)\n")
    assert "✘ FineTuneJob later failed: StorageUnavailable: " in ended.text


@pytest.mark.soak
def test_an_unreachable_s3_for_seeds(home: Path, tiny_model: Path) -> None:
    document = job("later", home, tiny_model)
    document["spec"]["datasets"][0]["uri"] = "s3://data/x.jsonl"
    aws = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    path = write_manifest(home, document)
    ended = run_cli("run", "-f", path, "--seed", "s3://data/x.jsonl=data.jsonl", folder=home, env=aws)
    assert ended.code == 1
    assert "Traceback" not in ended.text
    said = ended.text.splitlines()[-1]
    assert said.startswith("tunesmith: Cannot look at s3://data/x.jsonl: no response from "), said


def test_nothing_in_the_embedded_s3_is_explained(home: Path, tiny_model: Path) -> None:
    document = job("empty", home, "s3://models/nothing-here")
    ended = run_cli("run", "-f", write_manifest(home, document), "--work-dir", "w", folder=home)
    assert ended.code == 2
    assert "s3:// is the embedded S3 at http://127.0.0.1:" in ended.text
    assert "✘ FineTuneJob empty failed: StorageRefused: spec.model.uri: There is no file" in ended.text
    assert ended.text.splitlines()[-1].startswith("The embedded S3 has outputs of earlier jobs and ")


# --- Ctrl-C -----------------------------------------------------------------------------------------------


def processes_with(text: str) -> list[int]:
    """Processes whose command or environment holds `text`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                content = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in content:
                found.append(int(folder.name))
    return found


def wait_for(what: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="kill", marks=pytest.mark.soak),
        pytest.param(signal.SIGHUP, id="terminal-closed", marks=pytest.mark.soak),
    ],
)
def test_a_stop_leaves_no_process_and_can_be_gone_on_from(home: Path, tiny_model: Path, how: int) -> None:
    name = f"long-{int(how)}"
    document = job(name, home, tiny_model, tracking={"tensorboard": False})
    document["spec"]["training"] |= {"maxSteps": 100000, "saveSteps": 100000, "loggingSteps": 1}
    document["spec"]["storage"] = {}
    document["spec"]["datasets"].append({"uri": "s3://data/more.jsonl", "chat": {}})  # so that S3 runs too
    path = write_manifest(home, document)
    work = home / f"work-{int(how)}"
    process = start_cli(
        "run", "-f", path, "--work-dir", work, "--seed", "s3://data/more.jsonl=data.jsonl", folder=home
    )
    metrics = work / f"jobs/default/{name}-ftj/scratch"
    try:
        wait_for(lambda: any(p.stat().st_size for p in metrics.glob("launch-*/output/metrics.jsonl")))
        assert len(processes_with(str(work))) >= 4  # the command, the launcher, a rank, and the S3 server
        os.kill(process.pid, how)
        text, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130, text
    assert f"Stopping FineTuneJob {name}: the current step is finished and saved.\n" in text
    assert text.endswith("Stopped. Run the same command again to resume.\n")
    assert "Traceback" not in text
    wait_for(lambda: not processes_with(str(work)), 5)
    assert list((home / f"out-{name}").glob("checkpoint-*/")), "the step under way was saved"
    assert json.loads((work / f"jobs/default/{name}-ftj/attempt.json").read_text())["attempt"] == 1
