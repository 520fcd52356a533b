"""The sampling loop of one engine: prompts in, judged rows out, and nothing ever waits for a batch.

All replies to a prompt are asked for together; each is judged and written down as soon as it ends. There are
up to twice as many requests as the engine works on, and no more, so memory does not grow with the prompts.
Knows the engine by its seam, the journal by two methods, and nothing of processes, pods and files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Protocol

from tunesmith.api.generation import SamplingSpec
from tunesmith.data.formats.judgement import UNPARSABLE
from tunesmith.data.prompts.load import Prompt
from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.errors import first_error
from tunesmith.sampling.rows import CANCELLED, LENGTH, NONE, SampleRow, row_key
from tunesmith.sampling.verdict import PROMPT_TOO_LONG, TRUNCATED, Verdict, rejected

Shards = Callable[[], Awaitable[range | None]]
"""The next positions of prompts to work on; None when there are no more."""


async def _none_kept(prompt: str) -> int:
    return 0


class Judges(Protocol):
    """Accepts or rejects replies (`sampling.pool.VerifierPool`)."""

    async def verify_async(self, record: Mapping[str, Any], reply: str) -> Verdict:
        """Return the verdict on one reply to one prompt."""
        ...


class SampleJournal(Protocol):
    """Where rows go (`artifacts.journal.journal.Journal`)."""

    def __contains__(self, key: str) -> bool:
        """Return whether this row is done."""
        ...

    def append(self, key: str, record: Mapping[str, Any]) -> bool:
        """Write a row that will not be lost."""
        ...


@dataclass(slots=True)
class SamplingCounts:
    """What this loop has done: for progress only, the statistics come from the rows."""

    prompts: int = 0
    replies: int = 0
    accepted: int = 0
    tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


class SamplingLoop:
    """Samples and verifies replies until there are no more shards. Call `run` once.

    `kept` returns how many replies of a prompt were accepted before; it is called only if `stopAfterAccepted`
    is set and some rows of the prompt are done. `finished` is called with each shard whose rows are all
    written.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        engine: Engine,
        judges: Judges,
        rows: SampleJournal,
        sampling: SamplingSpec,
        *,
        finished: Callable[[range], None] = lambda shard: None,
        kept: Callable[[str], Awaitable[int]] = _none_kept,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tally = SamplingCounts()
        self.latest: tuple[Prompt, SampleRow] | None = None
        """The last reply that was judged, with its prompt."""
        self._prompts, self._engine, self._judges, self._rows = prompts, engine, judges, rows
        self._sampling, self._finished, self._kept, self._clock = sampling, finished, kept, clock
        # As many wait as are under way, which may all end in one step: those that began together and are cut.
        self._most_drawing = 2 * max(4, engine.at_once)
        self._most_open = 2 * self._most_drawing + 64
        self._drawing, self._open, self._changed = 0, 0, asyncio.Event()

    async def run(self, shards: Shards) -> None:
        """Sample all shards. Raises the first error of engine, judges and rows; rows so far are kept."""
        try:
            async with asyncio.TaskGroup() as group:
                while (shard := await shards()) is not None:
                    await self._shard(shard, group)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None

    async def _shard(self, shard: range, group: asyncio.TaskGroup) -> None:
        left = len(shard)

        def done(task: asyncio.Task[None]) -> None:
            nonlocal left
            if not task.cancelled() and task.exception() is None:
                left -= 1
                self.tally.prompts += 1
                if not left:
                    self._finished(shard)

        for position in shard:
            prompt = self._prompts[position]
            every = range(self._sampling.num_samples)
            missing = [index for index in every if row_key(prompt.id, index) not in self._rows]
            if missing:
                await self._room(len(missing))
            group.create_task(self._prompt(prompt, missing)).add_done_callback(done)

    async def _room(self, wanted: int) -> None:
        """Wait until the engine would run out of requests without these, and count them in."""
        while self._drawing >= self._most_drawing or self._open >= self._most_open:
            self._changed.clear()
            await self._changed.wait()
        self._drawing += wanted
        self._open += wanted

    def _drawn(self, number: int) -> None:
        self._drawing -= number
        self._changed.set()

    async def _prompt(self, prompt: Prompt, missing: list[int]) -> None:
        draw = _Draw(self, prompt, len(missing))
        try:
            if len(prompt.ids) >= self._engine.longest:
                self._write(_no_reply(prompt, i, NONE, PROMPT_TOO_LONG) for i in missing)
            elif self._sampling.stop_after_accepted and missing:
                await self._until_accepted(draw, missing, self._sampling.stop_after_accepted)
            else:
                async with asyncio.TaskGroup() as group:
                    for index in missing:
                        group.create_task(self._write_row(draw, index))
        finally:
            draw.end()
            self._open -= len(missing)
            self._changed.set()

    async def _write_row(self, draw: _Draw, index: int) -> None:
        self._write([await draw.row(index)])

    async def _until_accepted(self, draw: _Draw, missing: list[int], enough: int) -> None:
        before = await self._kept(draw.prompt.id) if len(missing) < self._sampling.num_samples else 0
        if before >= enough:
            self._write(_no_reply(draw.prompt, index, CANCELLED) for index in missing)
        elif self._sampling.deterministic:
            await self._in_order(draw, missing, enough - before)
        else:
            await _Race(self, draw, enough - before).run(missing)

    async def _in_order(self, draw: _Draw, missing: list[int], enough: int) -> None:
        """Sample all and keep the first in order, since which one ends first depends on the machine."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(draw.row(index)) for index in missing]
        rows: list[SampleRow] = []
        for row in (task.result() for task in tasks):
            rows.append(row if enough > 0 else _no_reply(draw.prompt, row.sample_index, CANCELLED))
            enough -= rows[-1].accepted
        self._write(rows)

    async def _reply(self, prompt: Prompt, index: int) -> GeneratedReply:
        seed = seed_of(self._sampling.seed, prompt.id, index) if self._sampling.deterministic else None
        return await self._engine.reply(GenerationRequest(prompt.ids, prompt.id, index, seed))

    async def _judged(self, prompt: Prompt, index: int, reply: GeneratedReply, began: float) -> SampleRow:
        if reply.finish_reason == LENGTH:
            verdict = rejected(TRUNCATED)
        elif not reply.text.strip():
            verdict = rejected(UNPARSABLE)  # whatever a verifier says: nothing can be learned from it
        else:
            verdict = await self._judges.verify_async(prompt.record, reply.text)
        row = SampleRow(
            prompt.id,
            index,
            reply.text,
            reply.finish_reason,
            verdict.reason,
            verdict.details,
            reply.tokens,
            len(prompt.ids),
            round(self._clock(), 3),
            round(began, 3),
        )
        self.latest = (prompt, row)
        return row

    def _write(self, rows: Iterable[SampleRow]) -> None:
        for row in rows:
            if self._rows.append(row_key(row.id, row.sample_index), row.to_json()):
                self.tally.replies += row.finish_reason != CANCELLED
                self.tally.accepted += row.accepted
                self.tally.tokens += row.tokens


class _Draw:
    """The replies to one prompt that are being sampled; each is counted out once, sampled or cancelled."""

    def __init__(self, loop: SamplingLoop, prompt: Prompt, number: int) -> None:
        self.prompt = prompt
        self._loop, self._left = loop, number
        self._began: dict[int, float] = {}

    async def row(self, index: int) -> SampleRow:
        return await self.judged(index, await self.reply(index))

    async def reply(self, index: int) -> GeneratedReply:
        self._began[index] = self._loop._clock()
        reply = await self._loop._reply(self.prompt, index)
        self._left -= 1
        self._loop._drawn(1)
        return reply

    async def judged(self, index: int, reply: GeneratedReply) -> SampleRow:
        return await self._loop._judged(self.prompt, index, reply, self._began[index])

    def end(self) -> None:
        self._loop._drawn(self._left)
        self._left = 0


class _Race:
    """The replies to one prompt, of which the rest is cancelled once enough are accepted."""

    def __init__(self, loop: SamplingLoop, draw: _Draw, enough: int) -> None:
        self._loop, self._draw, self._enough = loop, draw, enough
        self._under_way: dict[int, asyncio.Task[None]] = {}

    async def run(self, missing: list[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for index in missing:
                self._under_way[index] = group.create_task(self._one(index))
        prompt = self._draw.prompt
        self._loop._write(_no_reply(prompt, index, CANCELLED) for index in sorted(self._under_way))

    async def _one(self, index: int) -> None:
        reply = await self._draw.reply(index)
        del self._under_way[index]  # it is sampled, so it counts
        row = await self._draw.judged(index, reply)
        self._loop._write([row])
        self._enough -= row.accepted
        if self._enough <= 0:
            for task in self._under_way.values():
                task.cancel()


def seed_of(seed: int, *names: object) -> int:
    """Return a seed below 2**63 that depends on nothing but these."""
    text = "\0".join(str(name) for name in (seed, *names))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def _no_reply(prompt: Prompt, index: int, finish_reason: str, reason: str = "") -> SampleRow:
    return SampleRow(prompt.id, index, "", finish_reason, reason, {}, 0, len(prompt.ids), 0)
