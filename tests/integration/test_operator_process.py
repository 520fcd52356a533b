"""The operator that tests start: none is left when the tests are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.world import free_port, until

pytestmark = pytest.mark.slow

PROGRAM = """
import signal, sys
from tests.cluster.world import OperatorProcess, free_port
print(OperatorProcess("nowhere", free_port(), sys.argv[1]).process.pid, flush=True)
signal.pause()
"""


def is_over(pid):
    """Whether a process has ended; as a zombie, if nobody waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def away(path):
    """A kubeconfig of an API server that does not answer: the operator asks it again and again."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "away", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "away", "user": {"token": "unused"}}],
        "contexts": [{"name": "away", "context": {"cluster": "away", "user": "away"}}],
        "current-context": "away",
    }
    path.write_text(json.dumps(config))
    return str(path)


def test_no_operator_outlives_tests_that_are_killed(tmp_path):
    log, environment = tmp_path / "operator.log", os.environ | {"KUBECONFIG": away(tmp_path / "kubeconfig")}
    command = [sys.executable, "-c", PROGRAM, log]
    tests = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    operator = int(tests.stdout.readline())
    try:
        until(lambda: "Cannot list" in log.read_text(), "The operator did not run", 120)
        tests.kill()
        tests.wait()
        until(lambda: is_over(operator), "The operator did not end", 20)
    finally:
        if not is_over(operator):
            os.kill(operator, signal.SIGKILL)
