import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cases import each

from tunesmith import names
from tunesmith.api.generation import VerifierSpec
from tunesmith.api.rules import MACHINE
from tunesmith.errors import PermanentError, StoppedError
from tunesmith.sampling.pool import VerifierPool

FUNCTIONS = """
import ctypes, os, pathlib, socket, sys, time
from shutil import which
def one(record): return True
async def later(record, reply): return True
def f(record, reply):
    match reply.split(" ")[0]:
        case "yes": return True
        case "no": return False
        case "raise": raise ValueError("\\ud800")
        case "unprintable": raise type("E", (Exception,), {"__str__": lambda self: 1 / 0})()
        case "exit": os._exit(0)
        case "hang":
            while True: pass
        case "sleep": time.sleep(60)
        case "memory": return len(bytearray(2**31)) > 0
        case "print": print("x" * 10**6); os.write(1, b"{}\\n"); return True
        case "object": return object()
        case "none": return None
        case "one": return 1
        case "details": return {"accepted": True, "score": 0.5, "bad": float("nan")}
        case "huge": return {"accepted": False, "x": [["y" * 10**5] * 1000] * 1000}
        case "fork": os.fork(); return True
        case "segfault": ctypes.string_at(0)
        case "recursion": return f(record, reply)
        case "quit": sys.exit(0)
        case "interrupt": raise KeyboardInterrupt
        case "close": os.closerange(0, 100); return True
        case "change": record["a"] = 2; return True
        case "environment": return {"accepted": True, "names": sorted(os.environ)}
        case "network":
            try: socket.create_connection(("127.0.0.1", int(reply.split(" ")[1])), timeout=5).close()
            except OSError: return False
            return True
        case "child":
            if os.fork() == 0: time.sleep(60)
            return True
"""
ENDINGS = {
    "no": "refused_by_function",
    "raise": "verifier_error",
    "unprintable": "verifier_error",
    "quit": "verifier_error",
    "interrupt": "verifier_error",
    "recursion": "verifier_error",
    "exit": "verifier_crashed",
    "segfault": "verifier_crashed",
    "close": "verifier_crashed",
    "hang": "verifier_timeout",
    "memory": "verifier_out_of_memory",
    "object": "verifier_nonsense",
    "none": "verifier_nonsense",
    "one": "verifier_nonsense",
    "huge": "refused_by_function",
    "yes": "",
    "print": "",
    "details": "",
    "fork": "",
    "change": "",
}


def spec(**verifier):
    return VerifierSpec.model_validate(verifier)


def function(name="f", seconds=1):
    return spec(python={"function": f"some_verifiers:{name}", "timeoutSeconds": seconds})


@pytest.fixture(autouse=True)
def functions(tmp_path, monkeypatch):
    (tmp_path / "some_verifiers.py").write_text(FUNCTIONS)
    (tmp_path / "ends_process.py").write_text("import os\nos._exit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = ("some_verifiers", "ends_process", "no_such_module")
    monkeypatch.setenv(names.ENV_RULES, replace(MACHINE, python_modules=modules).text())


def test_a_function_sees_no_secret_and_no_key_of_the_storage(monkeypatch):
    secrets = ("TUNESMITH_SECRET_A_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "MY_PASSWORD")
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    with VerifierPool(function(), workers=1) as verifiers:
        seen = verifiers.verify({}, "environment").details["names"]
    assert "PATH" in seen
    assert not [name for name in seen if name in secrets]


def test_a_function_has_no_network_where_the_kernel_lets_us():
    if subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets no process have a network of its own")
    with socket.create_server(("127.0.0.1", 0)) as server, VerifierPool(function(), workers=1) as verifiers:
        assert not verifiers.verify({}, f"network {server.getsockname()[1]}").accepted


def test_a_function_that_its_module_has_from_another_is_not_called(monkeypatch):
    with pytest.raises(PermanentError, match=r"^verifier\.python\.function: Functions of the module shutil "):
        VerifierPool(function("which"))
    monkeypatch.delenv(names.ENV_RULES)
    with pytest.raises(PermanentError, match="run with --allow-python some_verifiers"):
        VerifierPool(function())


def test_whatever_a_function_does_rejects_its_reply_and_stops_nothing():
    record = {"a": 1}
    with VerifierPool(function(), workers=2, memory_bytes=2**28) as verifiers:
        for reply, reason in ENDINGS.items():
            verdict = verifiers.verify(record, reply)
            assert (verdict.reason, verdict.accepted) == (reason, not reason), reply
            assert len(str(verdict.details)) < 40_000
            assert verifiers.verify(record, "yes").accepted, f"after {reply}"
    assert record == {"a": 1}


def test_many_threads_get_their_own_verdicts():
    replies = ["yes", "no", "raise", "details"] * 50 + ["exit", "hang"]
    with VerifierPool(function(), workers=2) as verifiers, ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(lambda reply: verifiers.verify({}, reply), replies))
    assert [verdict.reason for verdict in verdicts] == [ENDINGS[reply] for reply in replies]


def test_an_event_loop_gets_verdicts_and_may_cancel():
    async def all_of():
        with VerifierPool(function(), workers=1) as verifiers:
            given_up = asyncio.create_task(verifiers.verify_async({}, "hang"))
            waiting = asyncio.create_task(verifiers.verify_async({}, "hang"))
            verdicts = asyncio.gather(*(verifiers.verify_async({}, ["yes", "no"][i % 2]) for i in range(100)))
            await asyncio.sleep(0.1)
            given_up.cancel()
            waiting.cancel()
            return await verdicts

    started = time.monotonic()
    assert [verdict.accepted for verdict in asyncio.run(all_of())] == [True, False] * 50
    assert time.monotonic() - started < 30


def test_close_ends_what_runs_and_what_waits():
    verifiers = VerifierPool(function(seconds=60), workers=1)
    futures = [verifiers.submit({}, "sleep") for _ in range(3)]
    time.sleep(0.5)
    started = time.monotonic()
    verifiers.close()
    assert time.monotonic() - started < 10
    for future in [*futures, verifiers.submit({}, "yes")]:
        with pytest.raises(StoppedError):
            future.result(timeout=5)


ALONE = """
import sys
from tunesmith.api.generation import VerifierSpec
from tunesmith.sampling.pool import VerifierPool
spec = VerifierSpec.model_validate({"python": {"function": "some_verifiers:f", "timeoutSeconds": 600}})
verifiers = VerifierPool(spec, workers=2)
verifiers.submit({}, "hang")
verifiers.submit({}, "hang")
while len([k for k in verifiers._keepers if k._process]) < 2: pass
print(*[k._process._process.pid for k in verifiers._keepers], flush=True)
sys.stdin.read()
"""


def test_no_worker_outlives_a_killed_parent(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    parent = subprocess.Popen(
        [sys.executable, "-c", ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(1)  # until both hang
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


WRONG = [
    (spec(regex={"pattern": "("}), "verifier.regex.pattern"),
    (spec(regex={"pattern": "a", "field": "x"}), "verifier.regex.pattern has no group"),
    (spec(jsonSchema={"schema": {"type": "nope"}}), "verifier.jsonSchema.schema.type"),
    (spec(jsonSchema={"schema": {"$ref": "#/nowhere"}}), "verifier.jsonSchema.schema"),
    (spec(jsonSchema={"schema": {"$ref": "http://localhost:1/x"}}), "verifier.jsonSchema.schema"),
    (spec(jsonSchema={"schema": {"pattern": "("}}), "verifier.jsonSchema.schema"),
    (function("missing"), "verifier.python.function: some_verifiers:missing cannot be imported"),
    (function("sys"), "is not a function"),
    (function("one"), "cannot be called with a record and a reply"),
    (function("later"), "is async"),
    (spec(python={"function": "no_such_module:f"}), "verifier.python.function: no_such_module:f"),
    (spec(python={"function": "ends_process:f"}), "verifier.python.function"),
]


@each(("wrong", "message"), WRONG, ids=[message[-30:] for _, message in WRONG])
def test_a_wrong_verifier_is_found_before_anything_is_sampled(wrong, message):
    with pytest.raises(PermanentError, match=message.replace("(", r"\(")):
        VerifierPool(wrong, workers=1)


def test_patterns_that_never_end_are_ended():
    with VerifierPool(spec(regex={"pattern": "(x+x+)+y"}), workers=1) as verifiers:
        assert verifiers.verify({}, "x" * 5000).reason == "verifier_timeout"
        assert verifiers.verify({}, "xxy").accepted


def test_harmless_verifiers_start_no_process():
    with VerifierPool(spec(exactMatch={"field": "output"})) as verifiers:
        assert verifiers.verify({"output": "x"}, "x").accepted
        assert not verifiers._keepers
