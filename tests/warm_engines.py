"""A job's engine processes as forks: of a process that was forked from the job before it did anything.

The job itself cannot fork them, since it has threads by then. What a job sees of an engine is as usual: its
number, its exit code, its death with the job's.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from tunesmith.jobs import engine_process
from tunesmith.parent_death import die_with_parent

MODULE = "tunesmith.jobs.engine_worker"
_NUMBER = struct.Struct("i")
_LONGEST = 1 << 20
Begin = Callable[[Mapping[str, str], int], None]


class Nursery:
    """What forks the engines of this process; ends with it. `begin` makes a fork a new process."""

    def __init__(self, begin: Begin) -> None:
        self._asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            try:
                self._asking.close()
                _serve(asked, begin)
            finally:
                os._exit(70)
        asked.close()
        vars(engine_process)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": self._popen})

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes] | _Engine:
        if MODULE not in command:
            return subprocess.Popen(command, **options)
        ours, theirs = socket.socketpair()
        words = command[command.index(MODULE) + 1 :]
        message = json.dumps([words, dict(options["env"])]).encode()
        with theirs:
            socket.send_fds(self._asking, [message], [theirs.fileno(), *options["pass_fds"]])
        return _Engine(ours)


class _Engine:
    """An engine, as far as a job uses a Popen."""

    def __init__(self, said: socket.socket) -> None:
        self._said = said
        self.returncode: int | None = None
        self.pid: int = _NUMBER.unpack(said.recv(_NUMBER.size))[0]

    def poll(self) -> int | None:
        return self._read(socket.MSG_DONTWAIT)

    def wait(self) -> int | None:
        return self._read(0)

    def _read(self, flags: int) -> int | None:
        if self.returncode is None:
            try:
                said = self._said.recv(_NUMBER.size, flags)
            except BlockingIOError:
                return None
            self.returncode = _NUMBER.unpack(said)[0] if said else -signal.SIGKILL
        return self.returncode


def _serve(asked: socket.socket, begin: Begin) -> None:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, _LONGEST, 2)
        if not message:
            os._exit(0)
        if not os.fork():
            asked.close()
            _watch(*json.loads(message), *descriptors, begin)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(words: list[str], env: dict[str, str], told: int, connection: int, begin: Begin) -> None:
    """Fork the engine and tell its number and, when it has ended, its exit code."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watcher = os.getpid()
    engine = os.fork()
    if not engine:
        try:
            os.close(told)
            _be_engine([*words[:-2], str(connection), str(watcher)], env, begin)
        finally:
            os._exit(70)
    os.close(connection)
    os.write(told, _NUMBER.pack(engine))
    _, status = os.waitpid(engine, 0)
    os.write(told, _NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _be_engine(arguments: list[str], env: dict[str, str], begin: Begin) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    begin(env, 1)
    from tunesmith.jobs import engine_worker

    os._exit(engine_worker.main(arguments))
