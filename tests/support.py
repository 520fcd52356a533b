"""The real command on small manifests: what integration tests of every kind start from."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.warm import Warm, command

from tunesmith.names import METRICS_KEY

TIMES = ("tokens_per_second", "memory_bytes")
CODE = "import sys; from tunesmith.cli import main; sys.argv[0] = 'tunesmith'; main()"


def chat_records(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Conversations of unequal lengths, some of several turns."""
    words = ("river", "lamp", "old town", "weather", "apple", "公园", "dance")
    records = []
    for number in range(start, start + count):
        messages = []
        for turn in range(1 + number % 3):
            word = words[(number + turn) % len(words)]
            messages.append({"role": "user", "content": f"What is {word} number {number}?" * (1 + turn)})
            messages.append({"role": "assistant", "content": f"{word} is {number} " * (1 + number % 4)})
        records.append({"id": f"r{number}", "messages": messages})
    return records


def write_jsonl(path: Path, records: Iterable[Any]) -> Path:
    """Write one JSON value a line; a text is written as it is."""
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return path


def with_positions(model: Path, folder: Path, positions: int) -> Path:
    """A copy of a model that takes longer texts."""
    shutil.copytree(model, folder)
    config = folder / "config.json"
    values = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps(values | {"max_position_embeddings": positions}), "utf-8")
    return folder


def finetune(
    name: str,
    *,
    model: Path | str,
    data: Path | str,
    output: Path | str | Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Six steps of the tiny model, a checkpoint every two. Keywords replace parts of the spec."""
    small = {
        "maxSteps": 6, "saveSteps": 2, "loggingSteps": 1, "perDeviceTrainBatchSize": 2,
        "gradientAccumulationSteps": 2, "learningRate": 1e-2, "warmupSteps": 0, "maxLength": 256,
    }  # fmt: skip
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": _uri(model)},
            "datasets": [{"uri": _uri(data), "chat": {}}],
            "method": {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}},
            "output": output if isinstance(output, Mapping) else {"uri": _uri(output)},
            "resources": {"gpusPerNode": 0},
            "tracking": {"tensorboard": False},
            **spec,
            "training": {**small, **(training or {})},
        },
    }


def _uri(place: Path | str) -> str:
    return f"file://{place}" if isinstance(place, Path) else place


@dataclass(frozen=True)
class Ended:
    """How a call of the command ended; `text` is all it printed."""

    code: int
    text: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without an S3 or a width of its own, and with no way to the hub."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TUNESMITH_", "WANDB_"))}
    return {**kept, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(extra or {})}


def start_cli(
    *arguments: str | Path, folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the command in `folder`, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=folder,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_ctrl_c,
    )


def _hear_ctrl_c() -> None:
    """A test run that was started in the background ignores SIGINT, which its children would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_cli(
    *arguments: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
    warm: bool = True,
) -> Ended:
    """Call the command in `folder` and wait; `warm`: in a fork that has everything imported."""
    if warm:
        return _run_warm(arguments, folder, env, timeout)
    process = start_cli(*arguments, folder=folder, env=env)
    try:
        text, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Ended(process.returncode, text)


def _run_warm(
    arguments: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None, timeout: float
) -> Ended:
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said.txt"
        process = Warm(command, arguments, env=environment(env), cwd=folder, log=said)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return Ended(code, said.read_text("utf-8"))


def call_cli(*arguments: str | Path, folder: Path) -> Ended:
    """Call the command in `folder`, in this process, which has its libraries loaded."""
    from tunesmith.cli import main

    said, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
    return Ended(code, said.getvalue())


def write_manifest(folder: Path, *documents: Mapping[str, Any]) -> Path:
    """Write a manifest file named after its first job."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{documents[0]['metadata']['name']}.yaml"
    path.write_text(yaml.safe_dump_all(documents, allow_unicode=True), "utf-8")
    return path


def run_job(
    folder: Path,
    document: Mapping[str, Any],
    *arguments: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
    warm: bool = True,
) -> Ended:
    """`tunesmith run` of one job, with `folder` as its home."""
    path = write_manifest(folder, document)
    return run_cli("run", "-f", path.name, *arguments, folder=folder, env=env, timeout=timeout, warm=warm)


def metrics_of(output: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what depends on the machine."""
    lines = (output / METRICS_KEY).read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def logs_of(folder: Path) -> str:
    """Everything the jobs below `folder` logged, for an assertion's message."""
    return "\n".join(
        p.read_text("utf-8", "replace")[-4000:] for p in sorted(folder.rglob("jobs/*/*/logs/*.log"))
    )
