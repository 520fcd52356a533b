"""A server with a batch interface in virtual time, and the processes of one job that ask it."""

import asyncio
import json
from email import message_from_bytes

import httpx2
from tests.standin.openai_batches import CUT, LOST, Batches
from tests.standin.openai_rules import Rules, Settings
from tests.unit.dialogue_world import Rows, everyone, plan, seeds
from tests.unit.endpoint_world import run

from tunesmith.api.dialogue import EndpointSpec
from tunesmith.dialogue.batch.api import BatchApi
from tunesmith.dialogue.batch.calls import BatchModelClient
from tunesmith.dialogue.batch.journal import BatchJournal
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.lull import LullDetector
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.rounds import generate
from tunesmith.dialogue.spending import spending
from tunesmith.dialogue.turns import budget_key
from tunesmith.errors import StoppedError

FIELDS = {"baseUrl": "https://example.org/v1", "model": "m"}
PRICE = {"inputPerMillion": 0.2, "outputPerMillion": 0.8}


def endpoint_spec(limits=None, **openai):
    fields = {"openai": {**FIELDS, "batch": {}, **openai}, "price": PRICE, "limits": limits or {}}
    return EndpointSpec.model_validate(fields)


class BatchServer:
    """The stand-in as an HTTP transport; `now` goes on over all processes."""

    def __init__(self, **settings):
        self.settings = Settings(**{"batch_seconds": 100.0, **settings})
        self.rules = Rules(self.settings)
        self.batches = Batches(self.rules)
        self.now, self.log = 0.0, []
        self.answer = lambda request: None
        """May answer a request instead, with a response or an exception to raise."""

    def clock(self):
        return self.now + asyncio.get_running_loop().time()

    async def __call__(self, request):
        path = request.url.path.removeprefix("/v1/")
        self.log.append(f"{request.method} {path}")
        await asyncio.sleep(0.1)
        found = self.answer(request)
        found = found or self._answer(request, path.split("/"), dict(request.url.params))
        await asyncio.sleep(0.1)
        if isinstance(found, Exception):
            raise found
        return found

    def _answer(self, request, path, query):
        after, limit = query.get("after"), int(query.get("limit", "20"))
        match (request.method, *path):
            case ("POST", "files"):
                return self._told(*self.batches.upload(*_file_of(request)))
            case ("GET", "files"):
                return httpx2.Response(200, json=self.batches.list_files(after, limit))
            case ("GET", "files", number, "content"):
                status, content, mishap = self.batches.content(number)
                return httpx2.Response(status, content=_cut(content) if mishap == CUT else content)
            case ("POST", "batches"):
                return self._told(*self.batches.create(json.loads(request.content), self.clock()))
            case ("GET", "batches"):
                return httpx2.Response(200, json=self.batches.list_batches(after, limit))
            case ("GET", "batches", number):
                return self._told(*self.batches.state(number, self.clock()))
            case ("POST", "batches", number, "cancel"):
                return self._told(*self.batches.cancel(number))
        return httpx2.Response(404, json={"error": {"message": "Not found."}})

    def _told(self, status, body, mishap):
        if mishap == LOST:
            return httpx2.ReadError("The connection broke.")
        return httpx2.Response(status, json=body)

    @property
    def stats(self):
        return self.batches.stats()


def _file_of(request):
    kind = request.headers["content-type"].encode()
    parts = message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + request.content).get_payload()
    found = {part.get_param("name", header="content-disposition"): part for part in parts}
    assert found["purpose"].get_payload() == "batch"
    return found["file"].get_filename(), found["file"].get_payload(decode=True)


async def _cut(content):
    yield content[: len(content) // 2]
    raise httpx2.ReadError("The connection broke.")


class Killed(BaseException):
    pass


class MortalRows(Rows):
    """A journal whose process is killed when it has written so many rows."""

    def __init__(self, rows, left):
        super().__init__(rows)
        self.left, self.killed = left, asyncio.Event()

    def append(self, key, record, *, durable=False):
        new = key not in self
        if new and self.left == 0:
            self.killed.set()
            raise Killed
        self.left -= new
        return super().append(key, record, durable=durable)


class JobWorld:
    """One job and its processes. `rows` is its journal, of which the first `sent` are in the storage."""

    def __init__(self, server, count=6, rounds=2, limit=10**12, spec=None, seeds_of=None, roles=None):
        self.server, self.rounds, self.limit = server, rounds, limit
        self.spec, self.seeds = spec or endpoint_spec(), seeds_of or seeds(count)
        self.rows, self.sent, self.disk = Rows(), 0, 0
        self.roles = roles or everyone
        self.budget, self.client, self.said = None, None, []

    def killed_after_row(self, count):
        """Run until the process has written so many rows; whether it came to its end before."""
        self.rows = rows = MortalRows(self.rows, count)
        self.process()
        self.rows = Rows(self.rows)
        return not rows.killed.is_set()

    def process(self, kill_at=None, lose_disk=False, stop_at=None):
        """Run until the end (the tally), until a kill (None), or until it is told to stop (StoppedError)."""
        self.stop_at = stop_at
        if lose_disk:
            self.disk += 1
            self.rows = Rows(dict(list(self.rows.items())[: self.sent]))
        self.sent = len(self.rows)
        try:
            tally, seconds = run(self._life(kill_at))
        finally:
            self.server.now += (kill_at or stop_at or 10_000.0) + 5.0
        self.seconds = seconds
        return tally

    async def _life(self, kill_at):
        work, tasks = asyncio.ensure_future(self._work()), []
        if isinstance(self.rows, MortalRows):
            tasks.append(asyncio.ensure_future(self.rows.killed.wait()))
        await asyncio.wait([work, *tasks], timeout=kill_at, return_when=asyncio.FIRST_COMPLETED)
        if any(task.done() for task in tasks) or not work.done():
            self.rows = Rows(self.rows)  # what a dead process still writes goes nowhere
            return None
        return work.result()

    async def _work(self):
        rows, name = self.rows, "gemini"
        found = spending(rows, {name: Price.at(self.spec)})

        def write(record):
            dict.__setitem__(rows, budget_key(record["number"]), dict(record))
            self._send(rows)

        async def send():
            await asyncio.sleep(0.05)
            self._send(rows)

        lull, earlier = LullDetector(), Rows(rows)
        self.budget = Budget(self.limit, write, found.past(f"disk {self.disk}"), f"disk {self.disk}")
        async with Endpoint(
            name, self.spec.openai, None, timeout=60.0, transport=httpx2.MockTransport(self.server)
        ) as endpoint:
            self.client = BatchModelClient(
                endpoint,
                BatchApi(endpoint, self.said.append),
                lull,
                BatchJournal(name, earlier.get, rows, send, self.budget.process),
                max_wait=float(self.spec.openai.batch.max_wait_seconds),
                max_retries=self.spec.limits.max_retries,
                price=Price.at(self.spec),
                budget=self.budget,
                labels={"job": "talk"},
                clock=self.server.clock,
            )
            await self.client.start()
            made = plan(self.rounds)
            try:
                return await generate(
                    made,
                    self.seeds,
                    self.roles(self.client),
                    rows,
                    earlier.get,
                    lull=lull,
                    clock=lambda: 7,
                    check=self._check,
                )
            finally:
                await self.budget.close()

    def _check(self):
        if self.stop_at is not None and asyncio.get_running_loop().time() > self.stop_at:
            raise StoppedError("Stopped.")

    def _send(self, rows):
        if rows is self.rows:
            self.sent = len(rows)

    def turns(self):
        """How all calls ended, without what depends on batches."""
        turns = {key: row for key, row in self.rows.items() if "/" not in key}
        return {key: {**row, "seconds": 0, "tries": 0, "cost": 0} for key, row in turns.items()}
