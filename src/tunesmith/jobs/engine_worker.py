"""One engine process: `python -m tunesmith.jobs.engine_worker TASK.json NUMBER DESCRIPTOR PARENT`.

Requests shards from the program, samples and verifies their rows and writes them to its own journal. Reports
over the channel; restarts are decided by the program.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.journal.fencing import Epoch, begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import Store, storage_options
from tunesmith.data.prompts.load import Prompt, Prompts
from tunesmith.engines.engine import Engine
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.engines.load import model_config
from tunesmith.engines.positions import max_positions
from tunesmith.engines.skip_imports import skip_imports, unneeded_packages
from tunesmith.errors import StoppedError
from tunesmith.jobs.channel import Channel
from tunesmith.jobs.engine_settings import EngineSettings
from tunesmith.jobs.live import shortened, shortened_messages
from tunesmith.jobs.metrics import gpu_memory
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.retry import Retry, retry_with_check
from tunesmith.jobs.termination import of_error
from tunesmith.names import ENV_ROWS
from tunesmith.parent_death import die_with_parent
from tunesmith.sampling.loop import SamplingLoop, seed_of
from tunesmith.sampling.pool import VerifierPool
from tunesmith.sampling.rows import SampleRow, row_key
from tunesmith.text import log_to_stderr
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
TOLD_EVERY = 0.5
"""Seconds between reports of progress."""
SEND_SECONDS = 20.0
"""How long the upload of the last rows may take if the engine ends before it is done."""


async def _engine(task: EngineSettings, seed: int) -> Engine:
    tokenizer = ChatTokenizer.load(
        task.files.tokenizer, trust_remote_code=task.model.trust_remote_code, today=task.day
    )
    if task.gguf is not None:
        from tunesmith.engines.llama_cpp.engine import LlamaCppEngine, context_for

        with Prompts(task.prompts) as prompts:
            longest = int(prompts.lengths.max(initial=0))
        most = context_for(longest, task.sampling.max_new_tokens, max_positions(task.files.base))
        return LlamaCppEngine(task.gguf, tokenizer, task.sampling, context=most, seed=seed)
    rows = int(os.environ.get(ENV_ROWS) or 0) or None
    if task.engine.vllm is not None:
        from tunesmith.engines.vllm.engine import open_vllm

        vllm = task.engine.vllm
        return await open_vllm(task.files, task.model, tokenizer, vllm, task.sampling, seed=seed, rows=rows)
    skip_imports(*unneeded_packages(model_config(task.files.base)))
    from tunesmith.engines.hf.engine import open_transformers

    assert task.engine.transformers is not None
    return open_transformers(
        task.files, task.model, tokenizer, task.engine.transformers, task.sampling, seed=seed, rows=rows
    )


def engine_seed(task: EngineSettings, epoch: Epoch, number: int) -> int:
    """Return the seed of engine `number`: a different one for each process that samples for this output.

    The epoch distinguishes a job that was applied again from the one before, whose replies must not be
    repeated.
    """
    names = ("engine", epoch.number, task.attempt, task.pod, number, os.getpid())
    return seed_of(task.sampling.seed, *names) % 2**32


def _accepted_before(
    task: EngineSettings, store: Store, epoch: Epoch, journal: Journal, folder: Path, wait: Retry
) -> Callable[[str], Awaitable[int]]:
    """Counts the replies to a prompt that earlier processes accepted; the rows are fetched on first use."""
    rows: CommittedRows | None = None
    fetching = asyncio.Lock()

    def fetch() -> CommittedRows:
        wait("Upload of rows", journal.send)
        found = CommittedRows(store, epoch, folder)
        wait("Gathering the rows", found.load)
        return found

    async def count(prompt: str) -> int:
        nonlocal rows
        async with fetching:
            if rows is None:
                rows = await asyncio.to_thread(fetch)
        keys = (row_key(prompt, index) for index in range(task.sampling.num_samples))
        found = [rows.get(key) for key in keys]
        return sum(SampleRow.from_json(row).accepted for row in found if row is not None)

    return count


class _EngineWorker:
    """The parts of a running engine process, and what may end it: the last shard, an error, a request."""

    def __init__(self, task: EngineSettings, number: int, channel: Channel) -> None:
        self._task, self._number, self._channel = task, number, channel
        self._shards: asyncio.Queue[range | None] = asyncio.Queue()
        self._stopped = False
        self._reported: tuple[Prompt, SampleRow] | None = None
        folder = task.journal / f"engine-{number}"
        self._store = open_store(task.output, storage_options(task.storage))
        self._epoch = begin_epoch(self._store, task.job, task.attempt)
        self._journal = Journal(self._store, self._epoch, task.writer(number), folder)
        self._progress = Progress()  # only its own troubles
        tell = self._progress.teller("upload of rows")
        self._upload = RetryingTask(
            "Upload of rows", self._journal.keep_sending, threading.Event(), tell=tell
        )
        folder = task.prompts.parent / f"accepted-{number}"
        self._kept = _accepted_before(task, self._store, self._epoch, self._journal, folder, self._retry)

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            with VerifierPool(self._task.verifier, path=self._task.verifier_path) as verifiers:
                engine = await _engine(self._task, engine_seed(self._task, self._epoch, self._number))
                try:
                    await self._watched(self._loop(engine, verifiers), engine.heartbeat, engine.at_once)
                finally:
                    self._channel.send(closing=True)
                    await engine.close()
        except BaseException:
            await self._flush(SEND_SECONDS)
            raise
        else:
            await self._send_all()
        finally:
            listening.cancel()
            self._upload.cancel()
            self._journal.close()

    def _retry(self, name: str, work: Callable[[], object]) -> None:
        def check() -> None:
            if self._stopped:
                raise StoppedError("The engine was stopped on request.")

        retry_with_check(name, work, check, self._progress.teller(name))

    def _loop(self, engine: Engine, verifiers: VerifierPool) -> SamplingLoop:
        return SamplingLoop(
            Prompts(self._task.prompts),
            engine,
            verifiers,
            self._journal,
            self._task.sampling,
            finished=lambda shard: self._channel.send(done=shard.start),
            kept=self._kept,
        )

    def _tell(self, silent: float = 0.0, **more: Any) -> None:
        """Report that this process is alive, how long the engine has been silent, and any trouble."""
        trouble = self._progress.oldest
        self._channel.send(silent=silent, trouble=None if trouble is None else asdict(trouble), **more)

    async def _watched(self, loop: SamplingLoop, heartbeat: Heartbeat, rows: int) -> None:
        """Run the loop until it ends, the upload fails for good, or the program requests a stop."""
        drawing = asyncio.create_task(loop.run(self._next))
        self._channel.send(ready=True, rows=rows)
        while not drawing.done():
            await asyncio.wait([drawing], timeout=TOLD_EVERY)
            counts = {"tally": loop.tally.as_dict(), **gpu_memory()}
            self._tell(silent=heartbeat.silent, **counts, **self._news(loop))
            if self._upload.error is not None or self._stopped:
                drawing.cancel()
                with suppress(asyncio.CancelledError):
                    await drawing
                raise self._upload.error or StoppedError("The engine was stopped on request.")
        await drawing

    def _news(self, loop: SamplingLoop) -> dict[str, Any]:
        """Return the last reply that was judged, for people to look at; nothing if that was reported."""
        if loop.latest is None or loop.latest is self._reported:
            return {}
        self._reported = loop.latest
        return {"latest": shown_reply(*loop.latest)}

    async def _next(self) -> range | None:
        self._channel.send(want=True)
        return await self._shards.get()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            if "shard" in message:
                self._shards.put_nowait(range(*message["shard"]))
            elif "end" in message:
                self._shards.put_nowait(None)
            else:
                self._stopped = True
        self._stopped = True  # the other end is closed

    async def _send_all(self) -> None:
        """Wait until every row is in the storage, however long that takes."""
        while not await self._flush(1.0):
            self._tell()
            if self._stopped:
                await self._flush(SEND_SECONDS)
                raise StoppedError("The engine was stopped while its last rows were being uploaded.")
        if self._upload.error is not None:
            raise self._upload.error

    async def _flush(self, seconds: float) -> bool:
        """Return whether the upload finished in time."""
        self._journal.end()
        self._upload.expedite()
        deadline = time.monotonic() + seconds
        while not self._upload.done and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        return self._upload.done


def shown_reply(prompt: Prompt, row: SampleRow) -> dict[str, Any]:
    """Return a judged reply as `LiveView.latest` shows it, with its `name`."""
    note = "accepted" if row.accepted else f"rejected: {row.reason}"
    return {
        "name": row.id,
        "messages": shortened_messages([message.as_dict() for message in prompt.messages]),
        "replies": [{"who": note, "text": shortened(row.response), "note": f"{row.tokens:,} tokens"}],
    }


async def _main(task: EngineSettings, number: int, connection: socket.socket) -> bool:
    """Return whether all succeeded; errors are reported over the channel."""
    channel = await Channel.over(connection)
    try:
        await _EngineWorker(task, number, channel).run()
        channel.send(finished=True)
        return True
    except BaseException as error:  # the edge of the process: reported to the pod's program, which decides
        termination = of_error(error)
        log.error("%s: %s", termination.reason, termination.message, exc_info=error)
        channel.send(failed=asdict(termination))
        return False
    finally:
        await channel.close()


def main(arguments: list[str]) -> int:
    """Return exit code 0 if all shards are done and uploaded."""
    path, number, descriptor, parent = Path(arguments[0]), *map(int, arguments[1:])
    die_with_parent()
    if os.getppid() != parent:
        return 1
    log_to_stderr(f"engine {number}")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    connection = socket.socket(fileno=descriptor)
    return 0 if asyncio.run(_main(EngineSettings.load(path), number, connection)) else 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
