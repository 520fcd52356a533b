"""Calls through a server's batch interface, behind `turns.ModelClient`: a round is one batch per role.

    a lull: every dialogue waits → requests of one round and role → money held (budget)
          → intent in the journal and in the storage → file → batch → its end
          → replies journalled, read, settled

Nothing is sent before its intent is where the next process looks for it, so that process knows which calls
are in progress and by which tag to find their batch. Replies are journalled as tries, like those of single
calls; what a batch lacks at its end is retried in another one. Does not depend on HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.batch.api import BatchApi, FileTooLargeError
from tunesmith.dialogue.batch.journal import BatchJournal
from tunesmith.dialogue.batch.run import BatchedCall, BatchRun, CallBatch, Requests, awaited, errors_of
from tunesmith.dialogue.batch.size import BatchSize
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.calls import cost_of, is_final, quota_error
from tunesmith.dialogue.clients import completion_of, earlier_outcomes
from tunesmith.dialogue.lull import LullDetector
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import Answer, ChatRequest, Denied, Outcome, Refused, ServerReply, Unusable
from tunesmith.dialogue.turns import Call, Completion, Tries
from tunesmith.errors import EndpointError, TunesmithError

log = logging.getLogger(__name__)


class BatchModelClient:
    """An endpoint asked in batches. One for all roles that it plays; `start` it before the first call.

    `max_wait` is in seconds, from the intent on; `labels` go into the metadata of batches.
    """

    def __init__(
        self,
        server: Requests,
        client: BatchApi,
        lull: LullDetector,
        journal: BatchJournal,
        *,
        max_wait: float,
        max_retries: int,
        price: Price | None = None,
        budget: Budget | None = None,
        labels: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._lull, self._journal, self._clock = server, lull, journal, clock
        self._max_retries, self._price, self._budget = max_retries, price, budget
        self._run = BatchRun(client, journal.note, max_wait, self._settle, labels or {}, clock)
        self._queue: dict[tuple[int, str], list[BatchedCall]] = {}
        self._under_way: dict[str, CallBatch] = {}
        self._held: dict[str, int] = {}
        self._running: set[CallBatch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lulls, self._beginning = 0, False
        self._error: BaseException | None = None
        self._size = BatchSize(server.name)
        self._worked, self._refusing = False, 0
        lull.listen(self._quiet)

    async def start(self) -> None:
        """Take over the batches that earlier processes have left."""
        left = self._journal.left()
        self._under_way, self._held = left.batches, left.held
        if left.held and self._budget is not None:
            await self._budget.adopt([*left.held.values()])

    async def call(self, call: Call, tries: Tries) -> Completion:
        """Ask in one batch after the other, until there is an end. Raises what ends the job."""
        request = self._server.request(call.messages, call.temperature, call.max_tokens, call.tools)
        past, denied = earlier_outcomes(self._server.name, tries, request), 0
        while not past or not (is_final(past[-1][0]) or len(past) > self._max_retries or denied > 1):
            outcome, reply = await self._ask(call, request, tries, denied > 0)
            if isinstance(outcome, Refused) and outcome.quota:
                raise quota_error(self._server.name, outcome)
            denied += isinstance(outcome, Denied)
            if not isinstance(outcome, Denied) or denied > 1:  # the first may have been of the moment
                past.append((outcome, reply))
        outcome, reply = past[-1]
        cost = sum(cost_of(each, request, self._price) for each, _ in past)
        return completion_of(outcome, reply, request, len(past), cost, tries.seconds)

    def stop(self, error: TunesmithError) -> None:
        """Send nothing and wait for nothing any more; batches in progress are there for the next process."""
        self._fail(error)

    def waiting(self) -> str:
        """Return what is waited for, since when, and how many requests are done; empty if nothing is."""
        return awaited(self._running)

    async def _ask(
        self, call: Call, request: ChatRequest, tries: Tries, denied: bool
    ) -> tuple[Outcome, ServerReply]:
        if self._error is not None:
            raise self._error.with_traceback(None)
        number = f"{call.id}-{tries.next}"
        asked = BatchedCall(
            number, call, request, tries, asyncio.get_running_loop().create_future(), request.body
        )
        asked.most, asked.denied = self._held.pop(number, 0), denied
        if number in self._under_way:
            self._under_way[number].waiting[number] = asked
        else:
            self._queue.setdefault((call.round, str(call.role)), []).append(asked)
        self._lull.rest()
        return await asked.future

    # A lull: what waits is sent, and what was sent is waited for.

    def _quiet(self) -> None:
        self._lulls += 1
        if not self._beginning and self._error is None:
            self._beginning = True
            self._spawn(self._begin())

    async def _begin(self) -> None:
        lulls = 0
        while lulls != self._lulls:
            lulls = self._lulls
            for batch in dict.fromkeys(self._under_way.values()):
                if batch.waiting and batch not in self._running:
                    self._launch(batch)
            for key in list(self._queue):
                await self._send_queue(key)
        self._beginning = False

    async def _send_queue(self, key: tuple[int, str]) -> None:
        """Send what waits now, in as many batches as it takes, or as there is room for."""
        queue = self._queue[key]
        left = len(queue)
        while left and not (self._size.alone and self._running):
            count = await self._hold(self._size.part(queue[:left]))
            if not count:
                break
            self._launch(await self._intend(key, queue[:count]))
            del queue[:count]
            left -= count

    async def _hold(self, part: Sequence[BatchedCall]) -> int:
        """Hold what they may cost; how many the budget has room for."""
        if self._budget is None:
            return len(part)
        price = self._price or Price(0, 0)
        amounts = [0 if asked.most else price.most(asked.request) for asked in part]
        count = await self._budget.hold_some(amounts)
        for asked, amount in zip(part[:count], amounts, strict=False):
            asked.most = asked.most or amount
        return count

    async def _intend(self, key: tuple[int, str], part: Sequence[BatchedCall]) -> CallBatch:
        """Say in the storage what is about to be sent."""
        batch = CallBatch(uuid.uuid4().hex, *key, self._clock(), new=True)
        for asked in part:
            asked.body = self._server.body(asked.request)
            batch.waiting[asked.id], self._under_way[asked.id] = asked, batch
        await self._journal.intend(batch)
        return batch

    def _launch(self, batch: CallBatch) -> None:
        self._running.add(batch)
        batch.total = len(batch.waiting)
        self._spawn(self._to_its_end(batch))

    async def _to_its_end(self, batch: CallBatch) -> None:
        try:
            await self._run.make(batch)
            what = f"Endpoint {self._server.name}: batch {batch.id}, round {batch.round} {batch.role}"
            log.info("%s, is awaited with %d requests.", what, batch.total)
            state = await self._run.wait(batch)
            log.info("%s, is %s.", what, state["status"])
            if state["status"] == "failed":
                await self._again(batch, errors_of(state))
            else:
                await self._collect(batch, state)
        except FileTooLargeError:
            await self._again(batch, "the file is too large")
        finally:
            self._running.discard(batch)
            self._lull.look()

    async def _collect(self, batch: CallBatch, state: Mapping[str, Any]) -> None:
        self._lull.resume()  # the first of its dialogues wait for the last
        try:
            await self._run.collect(batch, state)
            self._size.accepted()
            error = self._settle_denied(batch)
            self._run.close(batch, state["status"])
            if error is not None:
                raise error
        finally:
            self._lull.rest()

    # What came of it.

    def _settle(self, batch: CallBatch, asked: BatchedCall, reply: ServerReply) -> None:
        """Journal a reply, count its cost, and let its dialogue go on; refusals wait until all are known."""
        if self._server.learns(asked.body, reply):
            self._put_back(batch, asked)
            return
        outcome = read(reply, asked.request, self._server.name)
        if isinstance(outcome, Denied):
            batch.denied[asked.id] = (batch.waiting.pop(asked.id), reply, outcome)
            return
        batch.worked = batch.worked or isinstance(outcome, Answer | Unusable)
        del batch.waiting[asked.id]
        self._journal_try(asked, reply)
        self._pay(asked, cost_of(outcome, asked.request, self._price))
        self._wake(asked, (outcome, reply))

    def _settle_denied(self, batch: CallBatch) -> EndpointError | None:
        """Settle requests that were refused; the error that ends the job, if it is the endpoint's fault.

        It is their own where others were answered. Where none was, all are asked once more if the endpoint
        has worked before.
        """
        denied, batch.denied = list(batch.denied.values()), {}
        self._worked = self._worked or batch.worked
        first = [outcome for asked, _, outcome in denied if not asked.denied]
        of_all = bool(first) and not batch.worked and (len(first) > 1 or first[0].certain)
        self._refusing = self._refusing + 1 if of_all else 0
        error = EndpointError(first[0].complaint) if of_all else None
        if error is not None and self._worked and self._refusing == 1:
            for asked, _, _ in denied:
                batch.waiting[asked.id] = asked
                self._put_back(batch, asked)
            return None
        for asked, reply, outcome in denied:
            self._journal_try(asked, reply)
            self._pay(asked, 0)
            self._wake(asked, error or (outcome, reply))
        return error

    def _journal_try(self, asked: BatchedCall, reply: ServerReply) -> None:
        asked.tries.durable = False  # the server keeps it for weeks
        record = {"endpoint": self._server.name, "request": asked.request.body, "reply": reply.record()}
        asked.tries.write(record)
        del self._under_way[asked.id]

    def _pay(self, asked: BatchedCall, cost: int) -> None:
        if self._budget is not None:
            self._budget.settle(asked.most, cost)

    async def _again(self, batch: CallBatch, message: str) -> None:
        """The server refuses the batch as a whole: nothing is paid, and a smaller or later one may do."""
        batch.again = True
        self._run.close(batch, "failed")
        await asyncio.sleep(self._size.refused(message, len(batch.waiting), len(self._running)))
        for asked in list(batch.waiting.values()):
            self._put_back(batch, asked)

    def _put_back(self, batch: CallBatch, asked: BatchedCall) -> None:
        """Nothing was done, and nothing is paid: it waits for another batch, and its money is held still."""
        batch.again = True
        del batch.waiting[asked.id], self._under_way[asked.id]
        self._queue.setdefault((batch.round, batch.role), []).append(asked)

    # How calls and tasks end.

    def _wake(self, asked: BatchedCall, result: tuple[Outcome, ServerReply] | BaseException) -> None:
        if asked.future.done():  # cancelled
            return
        self._lull.resume()
        if isinstance(result, BaseException):
            asked.future.set_exception(result)
        else:
            asked.future.set_result(result)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Errors of the work are those of every call that waits."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        queued = [asked for queue in self._queue.values() for asked in queue]
        sent = [asked for batch in set(self._under_way.values()) for asked in batch.waiting.values()]
        for asked in [*queued, *sent]:
            self._wake(asked, self._error)
