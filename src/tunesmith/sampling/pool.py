"""Verdicts on many replies at once, whatever a verifier does.

Harmless verifiers are called in this process. The others run in a few worker processes, each with a thread
that keeps it: sends a task, waits no longer than the limit, kills and restarts it. A reply whose worker ended
by itself is verified once more by a fresh one, since another reply may have left the old one in a bad state.
Does not depend on engines and on where verdicts go.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tunesmith.errors import PermanentError, StoppedError, TemporaryError
from tunesmith.names import Reason
from tunesmith.processes import Ended, Process
from tunesmith.sampling.verdict import CRASHED, MEMORY, NONSENSE, TIMEOUT, Verdict, rejected
from tunesmith.sampling.verifiers import HARMLESS, VerifierTask, check_record, load, task_of

if TYPE_CHECKING:
    from tunesmith.api.generation import VerifierSpec

MEMORY_BYTES = 2 * 2**30
START_SECONDS = 300.0
MOST_WORKERS = 4
_STARTS = 3
_WORKER = "tunesmith.sampling.worker"
_LOADED = {"regex": "pattern", "json_schema": "schema", "python": "function"}


class _Ask(NamedTuple):
    record: Mapping[str, Any]
    reply: str
    future: Future[Verdict]


class VerifierPool:
    """One verifier for many threads and event loops. Use as a context manager.

    Opening it raises PermanentError for a bad pattern or schema and for a function that cannot be imported;
    the message names the manifest's field (`path` is the verifier's place in the manifest).
    """

    def __init__(
        self,
        spec: VerifierSpec | None,
        *,
        path: str = "verifier",
        workers: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.task = task_of(spec, path)
        self._harmless = load(self.task) if self.task.kind in HARMLESS else None
        self._asked: queue.SimpleQueue[_Ask | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        number = min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else workers
        first: Future[None] = Future()
        self._keepers = [
            _VerifierProcess(self.task, memory_bytes, self._asked, self._closing, None if index else first)
            for index in range(0 if self._harmless else number)
        ]
        if self._keepers:
            try:
                first.result()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check(self, record: Mapping[str, Any]) -> None:
        """Raise RecordProblem if replies to this prompt could not be judged, before any is sampled."""
        check_record(self.task, record)

    def submit(self, record: Mapping[str, Any], reply: str) -> Future[Verdict]:
        """Return the verdict to come. It may raise TemporaryError (workers cannot be started, or `close`)."""
        future: Future[Verdict] = Future()
        if self._harmless is not None:
            future.set_result(self._harmless(record, reply))
        elif self._closing.is_set():
            future.set_exception(_closed())
        else:
            self._asked.put(_Ask(record, reply, future))
            if self._closing.is_set():  # meanwhile, so that nobody may be left to take it
                self._refuse_waiting()
        return future

    def verify(self, record: Mapping[str, Any], reply: str) -> Verdict:
        """Return the verdict on one reply; waits for it."""
        return self.submit(record, reply).result()

    async def verify_async(self, record: Mapping[str, Any], reply: str) -> Verdict:
        """Verify without blocking the event loop; if cancelled, a reply that still waits is skipped."""
        return await asyncio.wrap_future(self.submit(record, reply))

    def close(self) -> None:
        """End at once: what runs is killed, and what is without a verdict gets StoppedError."""
        self._closing.set()
        for _ in self._keepers:
            self._asked.put(None)
        for keeper in self._keepers:
            keeper.stop()
        for keeper in self._keepers:
            keeper.join()
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        with suppress(queue.Empty):
            while True:
                ask = self._asked.get_nowait()
                if ask is not None and ask.future.set_running_or_notify_cancel():
                    ask.future.set_exception(_closed())


class _VerifierProcess:
    """A thread that keeps one worker. The kernel ends the worker with the thread that started it."""

    def __init__(
        self,
        task: VerifierTask,
        memory: int,
        asked: queue.SimpleQueue[_Ask | None],
        closing: threading.Event,
        opened: Future[None] | None,
    ) -> None:
        self._task, self._memory, self._asked, self._closing = task, memory, asked, closing
        self._opened = opened
        self._process: Process | None = None
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._opened is not None and not self._open(self._opened):
                return
            while (ask := self._asked.get()) is not None:
                if ask.future.set_running_or_notify_cancel():
                    self._settle(ask)
        finally:
            self._end()

    def stop(self) -> None:
        """Kill the worker from another thread, and with it the verdict in progress."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()

    def _open(self, opened: Future[None]) -> bool:
        try:
            self._started()
        except Exception as error:  # noqa: BLE001 - handed to the one who opens
            opened.set_exception(error)
            return False
        opened.set_result(None)
        return True

    def _settle(self, ask: _Ask) -> None:
        try:
            ask.future.set_result(self._verdict(ask))
        except Exception as error:  # noqa: BLE001 - handed to the one who asked
            ask.future.set_exception(error)

    def _verdict(self, ask: _Ask) -> Verdict:
        verdict = self._attempt(ask)
        if verdict.reason in (CRASHED, MEMORY):
            verdict = self._attempt(ask)
        return verdict

    def _attempt(self, ask: _Ask) -> Verdict:
        process, number = self._again_started(), next(self._numbers)
        try:
            answer = process.ask((number, dict(ask.record), ask.reply), self._task.seconds)
        except TimeoutError:
            self._end()
            return rejected(TIMEOUT, seconds=self._task.seconds)
        except Ended:
            exit_code = self._end()
            if self._closing.is_set():
                raise _closed() from None
            return rejected(CRASHED, exit_code=exit_code)
        if answer.get("number") == number and "memory" not in answer:
            return Verdict(answer["accepted"], answer["reason"], answer["details"])
        self._end()
        return rejected(MEMORY if "memory" in answer else NONSENSE)

    def _again_started(self) -> Process:
        """Return the worker, a fresh one if need be; an earlier load shows that the manifest is valid."""
        for left in reversed(range(_STARTS)):
            try:
                return self._started()
            except (PermanentError, OSError) as error:
                if not left:
                    raise TemporaryError(
                        f"A worker for {self._task.path} cannot be restarted: {error}"
                    ) from error
        raise AssertionError

    def _started(self) -> Process:
        with self._lock:
            if self._closing.is_set():
                raise _closed()
            if self._process is not None:
                return self._process
            process = self._process = Process(_WORKER)
        try:
            answer = process.ask((self._task, self._memory), START_SECONDS)
        except (Ended, TimeoutError) as error:
            exit_code = self._end()
            if self._closing.is_set():
                raise _closed() from None
            took = isinstance(error, TimeoutError)
            what = f"took more than {START_SECONDS:g} s" if took else f"ended its process (code {exit_code})"
            field = f"{self._task.path}.{_LOADED[self._task.kind]}"
            message = f"{field} cannot be used: loading it {what}."
            raise PermanentError(message, reason=Reason.INVALID_MANIFEST) from None
        if "wrong" in answer:
            self._end()
            raise PermanentError(answer["wrong"], reason=Reason.INVALID_MANIFEST)
        return process

    def _end(self) -> int | None:
        with self._lock:
            process, self._process = self._process, None
        return None if process is None else process.end()


def _closed() -> StoppedError:
    return StoppedError("Verification was stopped before this reply had a verdict.")
