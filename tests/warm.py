"""Processes that begin with everything imported: forks of one that has done so, instead of new ones.

A new process of a job imports torch, transformers and the rest for ten seconds of a processor; a fork of one
that has them starts at once. Everything else of it is as usual: arguments, environment, folder, descriptors,
session, signals and its end. Only the launcher is left out, so at least one test of each kind of job starts
its processes in the usual way.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Program = Callable[[list[str]], int]


@cache
def _server() -> ForkServerContext:
    """What forks; started with the first process, ended with this one."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined] # what helpers had, who do without torch
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.warm", "tests.warm_imports"])
    return context


class Warm:
    """A process with everything imported, to be handled as a `subprocess.Popen`."""

    def __init__(
        self,
        program: Program,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
    ) -> None:
        """Call `program` in `cwd` with exactly this environment; what it prints is added to `log`."""
        words = [str(argument) for argument in arguments]
        self._process = _server().Process(target=_run, args=(program, words, dict(env), cwd, log))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a warm process", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def together(
    program: Program, arguments: Sequence[str | Path], environments: Sequence[Mapping[str, str]], folder: Path
) -> list[str]:
    """What processes print that run at the same time, each with variables of its own beside this one's."""
    logs = [folder / f"said-{number}.txt" for number in range(len(environments))]
    running = [
        Warm(program, arguments, env={**os.environ, **environment}, cwd=folder, log=log)
        for environment, log in zip(environments, logs, strict=True)
    ]
    codes = [process.wait(300) for process in running]
    said = [log.read_text("utf-8") for log in logs]
    assert not any(codes), said
    return said


def called(words: list[str]) -> int:
    """`python -m MODULE ARGUMENTS`."""
    program: Program = import_module(words[0]).main
    return program(words[1:])


def _run(program: Program, arguments: list[str], env: Mapping[str, str], cwd: Path, log: Path) -> None:
    os.setsid()
    os.chdir(cwd)
    with log.open("ab") as file:
        _begin(env, file.fileno())
    _end(program(arguments))


def _begin(env: Mapping[str, str], output: int) -> None:
    """Make this fork what a new process with this environment is."""
    os.environ.clear()
    os.environ.update(env)
    for path in reversed(env.get("PYTHONPATH", "").split(":")):
        if path and path not in sys.path:
            sys.path.insert(1, path)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(at, "w", buffering=1, closefd=False) for at in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tempfile.tempdir = None
    random.seed()
    import torch

    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def command(arguments: list[str]) -> int:
    """The command `tunesmith`, whose jobs of one process are forks too."""
    from tests.warm_imports import LEFT_OUT

    from tunesmith.cli import main
    from tunesmith.local import launch

    for name in LEFT_OUT:  # what a job asks for is looked for before it starts
        sys.modules.pop(name, None)
    vars(launch)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": _popen})
    sys.argv = ["tunesmith", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _popen(command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes] | _Ranks:
    """The processes of a launcher; the launcher itself for a job with more than is imported."""
    if _wants_more(Path(command[-1])):
        return subprocess.Popen(command, env=env, **options)
    return _Ranks(command[-1], env, options["stdout"])


def _wants_more(run_json: Path) -> bool:
    spec = json.loads(run_json.read_text("utf-8"))["spec"]
    return "deepspeed" in spec or "qlora" in spec.get("method", {})


class _Ranks:
    """A job's processes; the first that fails ends the others. As far as `Launch` uses a Popen."""

    def __init__(self, run_json: str, env: dict[str, str], log: Any) -> None:
        count = env["PET_NPROC_PER_NODE"]
        world = {**env, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(int(count))]
        self._ranks = [_Rank(run_json, {**world, **rank}, log) for rank in ranks]
        self.pid = self._ranks[0].pid

    def poll(self) -> int | None:
        codes = [rank.poll() for rank in self._ranks]
        if any(codes):
            self.send_signal(signal.SIGTERM)
        return None if None in codes else max(code for code in codes if code is not None)

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("the job", timeout or 0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        for rank in self._ranks:
            rank.send_signal(number)


class _Rank:
    """The pod's program in a child of this process, which ends with it."""

    def __init__(self, run_json: str, env: dict[str, str], log: Any) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                _begin(env, log.fileno())
                from tests.warm_engines import Nursery

                from tunesmith.jobs import __main__ as program

                Nursery(_begin)
                _end(program.main([run_json]))
            finally:
                os._exit(70)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = int(status != 0) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)
