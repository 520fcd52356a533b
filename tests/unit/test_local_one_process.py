"""The launcher of a single process promises what torchrun does: its end, its signals, no orphans."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tunesmith.local.one_process import KILL_SECONDS, run_one

REPORTS = (
    "import json, os; print(json.dumps({n: os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')}))"
)
SLEEPS = "import signal, time; {}; print('up', flush=True); time.sleep(60)"
OBEYS = SLEEPS.format("signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), exit(0)))")
DEAF = SLEEPS.format("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
LAUNCHES = (
    "import os, sys; from tunesmith.local.one_process import run_one; "
    "sys.exit(run_one([sys.executable, '-c', sys.argv[1]], os.environ, float(sys.argv[2])))"
)


def launched(program: str, seconds: float = KILL_SECONDS) -> "subprocess.Popen[str]":
    """The launcher of a program that prints `up` once it runs."""
    command = [sys.executable, "-c", LAUNCHES, program, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize(
    ("program", "code"),
    [("pass", 0), ("exit(3)", 1), ("import os; os.kill(os.getpid(), 9)", 1)],
    ids=["success", "failure", "killed"],
)
def test_the_code_is_torchruns(program, code):
    assert run_one([sys.executable, "-c", program], os.environ) == code


def test_it_is_the_only_rank():
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES, REPORTS, "1"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_passed_on_and_waited_for(number):
    process = launched(OBEYS)
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "saved\n"
    assert process.returncode == 0


def test_what_does_not_stop_is_killed():
    process = launched(DEAF, seconds=0.2)
    process.terminate()
    process.communicate(timeout=60)  # ends when the program's end of the pipe is closed
    assert process.returncode == 1


def test_it_does_not_outlive_its_launcher():
    process = launched(DEAF)
    process.kill()
    process.communicate(timeout=60)


def test_it_starts_light():
    heavy = ("torch", "numpy", "pydantic", "typer")
    program = f"import sys; import tunesmith.local.one_process; print({{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
