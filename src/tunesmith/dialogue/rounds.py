"""All dialogues at once, each at its own pace: question, answer, correction, round after round.

No dialogue waits for another; a few thousand are open at a time, so memory does not grow with their number.
What a call came to is written down when it has ended, and never retried. A call without a text ends
its dialogue and no other. Knows models by `turns.ModelClient`, the journal by two functions, and no files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tunesmith.api.dialogue import DialogueGenSpec, RoleSpec
from tunesmith.dialogue.context import messages_for
from tunesmith.dialogue.flushes import Flushes
from tunesmith.dialogue.lull import LullDetector
from tunesmith.dialogue.state import Dialogue, PlannedSeed, Role
from tunesmith.dialogue.templates import Templates
from tunesmith.dialogue.turns import (
    Call,
    CallJournal,
    CallRow,
    Completion,
    GetRow,
    ModelClient,
    Tries,
    again_key,
    call_id,
    turns_of,
)
from tunesmith.errors import TunesmithError, first_error

MOST_OPEN, MOST_OPEN_IN_BATCHES = 2000, 10_000
"""Dialogues in progress at once; the more of them wait for a batch, the larger it is."""
DRAIN_SECONDS = 20.0
"""How long calls in progress may take to end when the job is ending."""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class DialoguePlan:
    """What makes up a dialogue. `fingerprint` stands for everything that changes results.

    `again`: how many rounds of asking again for what has failed there have been; a call that failed before
    the last of them is retried once more.
    """

    rounds: int
    max_messages: int
    roles: Mapping[Role, RoleSpec]
    templates: Templates
    fingerprint: str
    again: int = 0

    @classmethod
    def of(cls, spec: DialogueGenSpec, templates: Templates, fingerprint: str) -> DialoguePlan:
        """Return the plan of a job."""
        roles = {
            Role.QUESTION: spec.roles.question,
            Role.ANSWER: spec.roles.answer,
            Role.CORRECTION: spec.roles.correction,
        }
        return cls(spec.rounds, spec.context.max_messages, roles, templates, fingerprint)

    def id_of(self, seed: PlannedSeed, number: int, role: Role) -> str:
        """Return the journal's key of one call."""
        return call_id(self.fingerprint, seed.key, number, role)

    def turns_of(self, get: GetRow, seed: PlannedSeed, number: int, role: Role) -> list[tuple[int, CallRow]]:
        """Return how the call for this text has ended, each time (`turns.turns_of`)."""
        return turns_of(get, self.id_of(seed, number, role), seed.key, number, role, self.again)

    def call_for(self, dialogue: Dialogue) -> Call:
        """Return the call for the text that the dialogue wants next."""
        assert dialogue.wanted is not None
        number, role = dialogue.wanted
        spec = self.roles[role]
        return Call(
            again_key(self.id_of(dialogue.seed, number, role), self.again),
            dialogue.seed.key,
            number,
            role,
            messages_for(dialogue, self.templates, self.max_messages),
            spec.temperature,
            spec.max_tokens,
            dialogue.seed.tools if role is Role.ANSWER else "",
        )


@dataclass(slots=True)
class DialogueCounts:
    """What was done so far, earlier attempts' part included: for progress, the statistics come from rows."""

    done: int = 0
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    open: int = 0
    latest: Dialogue | None = None
    """The last one that came to its end, or to the call that failed."""

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        counts = ("done", "failed", "calls", "tokens", "open")
        return {name: getattr(self, name) for name in counts}


async def generate(
    plan: DialoguePlan,
    seeds: Iterable[PlannedSeed],
    clients: Mapping[Role, ModelClient],
    rows: CallJournal,
    earlier: GetRow,
    *,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[DialogueCounts], None] = lambda tally: None,
    most_open: int = MOST_OPEN,
    drain_seconds: float = DRAIN_SECONDS,
    clock: Callable[[], float] = time.time,
    lull: LullDetector | None = None,
) -> DialogueCounts:
    """Write every dialogue to its end, or to the call that failed. All rows are in `rows` when this returns.

    Dialogues, and clients whose calls wait for a batch, report to `lull`.

    `earlier` gives the rows that were committed before (`artifacts.journal.rows.CommittedRows.get`). `check`
    is called several times a second and raises TunesmithError if the job must end. Then, and if a
    client raises one, nothing new is sent, calls in progress get `drain_seconds`, and the error is raised.
    """
    rounds = _Rounds(
        plan, clients, rows, earlier, check, tell, most_open, drain_seconds, clock, lull or LullDetector()
    )
    return await rounds.run(seeds)


class _Rounds:
    def __init__(
        self,
        plan: DialoguePlan,
        clients: Mapping[Role, ModelClient],
        rows: CallJournal,
        earlier: GetRow,
        check: Callable[[], None],
        tell: Callable[[DialogueCounts], None],
        most_open: int,
        drain_seconds: float,
        clock: Callable[[], float],
        lull: LullDetector,
    ) -> None:
        self._plan, self._clients, self._rows, self._earlier = plan, clients, rows, earlier
        self._check, self._tell, self._clock, self._drain = check, tell, clock, drain_seconds
        self._room, self._lull = asyncio.Semaphore(most_open), lull
        self._flushes = Flushes(rows.flush)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: TunesmithError | None = None
        self._tally = DialogueCounts()

    async def run(self, seeds: Iterable[PlannedSeed]) -> DialogueCounts:
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                await self._all(seeds)
                watching.cancel()
        except BaseExceptionGroup as errors:
            raise first_error(errors) from None
        finally:
            self._tell(self._tally)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._tally

    async def _all(self, seeds: Iterable[PlannedSeed]) -> None:
        async with asyncio.TaskGroup() as group:
            self._lull.resume()
            for seed in seeds:
                self._lull.rest()
                await self._room.acquire()
                self._lull.resume()
                if self._error is not None:
                    break
                self._tally.open += 1
                self._lull.resume()
                task = group.create_task(self._one(seed))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(0)  # those that are done already would keep the others waiting
            self._lull.rest()

    async def _one(self, seed: PlannedSeed) -> None:
        try:
            dialogue = Dialogue(seed, self._plan.rounds)
            whole = await self._dialogue(dialogue)
            self._tally.latest = dialogue
            self._tally.done += 1
            self._tally.failed += not whole
        except TunesmithError as error:
            self._end(error)
        finally:
            self._tally.open -= 1
            self._room.release()
            self._lull.rest()

    async def _dialogue(self, dialogue: Dialogue) -> bool:
        """Generate a dialogue to its end; return False if a call failed."""
        while dialogue.wanted is not None:
            said = (await self._turn(dialogue)).said
            if said.reason:
                return False
            dialogue.say(said.text, said.truncated, said.reasoning, said.calls)
        return True

    async def _turn(self, dialogue: Dialogue) -> CallRow:
        """Return how the call for the wanted text ended: as the journal says, or now."""
        assert dialogue.wanted is not None
        known = self._plan.turns_of(self._earlier, dialogue.seed, *dialogue.wanted)
        at, turn = known[-1] if known else (0, None)
        if turn is None or (turn.said.reason and at < self._plan.again):
            turn = await self._ask(self._plan.call_for(dialogue))
        self._count(turn.said)
        return turn

    async def _ask(self, call: Call) -> CallRow:
        if self._error is not None:
            raise self._error.with_traceback(None)
        tries = Tries(call.id, self._earlier, self._rows, self._flushes)
        said = await self._clients[call.role].call(call, tries)
        turn = CallRow(call.seed, call.round, call.role, said, int(self._clock()))
        self._rows.append(call.id, turn.to_json())
        return turn

    def _count(self, said: Completion) -> None:
        self._tally.calls += 1
        self._tally.tokens += said.prompt_tokens + said.completion_tokens

    def _end(self, error: TunesmithError) -> None:
        """End the job; the first error is the reason."""
        if self._error is not None:
            return
        self._error = error
        for client in self._clients.values():
            client.stop(error)

    async def _watch(self) -> None:
        """Check whether the job must end, report progress, and cancel calls that outlast the drain time."""
        loop, ending = asyncio.get_running_loop(), None
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._tell(self._tally)
            if self._error is None:
                try:
                    self._check()
                except TunesmithError as error:
                    self._end(error)
            if self._error is not None:
                ending = ending or loop.time()
                if loop.time() - ending >= self._drain:
                    for task in list(self._tasks):
                        task.cancel()
