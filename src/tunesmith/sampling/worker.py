"""The process in which one verifier runs: started and, where need be, killed by `pool`.

Reads pickled tasks from a socket and answers each with a line of JSON, which nothing the verifier returns can
make dangerous to read. The verifier's own output goes nowhere. Does not depend on who waits for the verdicts.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.errors import PermanentError
from tunesmith.parent_death import die_with_parent
from tunesmith.processes import limit_memory, memory_in_use
from tunesmith.sampling.verdict import ERROR, rejected
from tunesmith.sampling.verifiers import Verify, load


def main(descriptor: int, parent: int) -> None:
    """Load the verifier of the first message, report that, then judge replies until the socket closes."""
    _end_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _leave_the_network()
    with socket.socket(fileno=descriptor) as ours, ours.makefile("rb") as messages:
        task, memory = pickle.load(messages)
        try:
            verify = load(task)
        except PermanentError as error:
            _send(ours, {"wrong": error.message})
            return
        if now := memory_in_use():  # a module of the user's may have brought a good deal
            limit_memory(now + memory)
        _send(ours, {"ready": True})
        _serve(ours, messages, verify)


def _serve(ours: socket.socket, messages: Any, verify: Verify) -> None:
    myself = os.getpid()
    while True:
        try:
            number, record, reply = pickle.load(messages)
        except EOFError:
            return
        answer = _answer(verify, record, reply)
        if os.getpid() != myself:  # the verifier forked, and this is the copy
            os._exit(1)
        _send(ours, {"number": number, **answer})
        if "memory" in answer:  # what it still holds would be missing for the next reply
            return


def _answer(verify: Verify, record: dict[str, Any], reply: str) -> dict[str, Any]:
    """Return the answer for one reply; no exception may escape, since the verifier is not our code."""
    try:
        return asdict(verify(record, reply))
    except MemoryError:
        return {"memory": True}
    except BaseException as error:  # noqa: BLE001
        return asdict(rejected(ERROR, error=type(error).__name__, message=_words(error)))


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001
        return "(its text cannot be shown)"


def _send(ours: socket.socket, answer: dict[str, Any]) -> None:
    ours.sendall(json.dumps(answer).encode() + b"\n")


def _leave_the_network() -> None:
    """Move into a separate, empty network namespace if the kernel allows it: many containers do not."""
    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.geteuid(), os.getegid()
    if os.uname().sysname != "Linux" or ctypes.CDLL(None).unshare(new_user | new_network):
        return
    with suppress(OSError):  # else it is nobody there, which does no harm
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _end_with(parent: int) -> None:
    """End with the keeper, even while the verifier holds the interpreter; and first when memory is short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent=parent)
    if os.uname().sysname == "Linux":
        Path("/proc/self/oom_score_adj").write_text("1000")  # rather this one than the engine
