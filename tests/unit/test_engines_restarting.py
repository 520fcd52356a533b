"""Engines that hang or die: signs of life, and who takes their place."""

import asyncio

import pytest
from tests.unit.endpoint_world import run

from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.engines.restarting import MOST_STARTS, RestartingEngine
from tunesmith.errors import MemoryShortError, ModelError, StoppedError, TemporaryError
from tunesmith.names import Reason

REQUEST = GenerationRequest([1, 2], "a", 0, None)
DIED = TemporaryError("It died.", reason=Reason.PROCESS_DIED)
SHORT = MemoryShortError("Memory ran out.")


def test_silence_counts_only_while_something_is_asked_for():
    now = [0.0]
    heart = Heartbeat(lambda: now[0])
    now[0] = 100.0
    assert heart.silent == 0
    with heart.asked():
        now[0] = 107.0
        assert heart.silent == 7
        heart.beat()
        now[0] = 110.0
        with heart.asked():
            assert heart.silent == 3
        assert heart.silent == 0  # a reply
        now[0] = 115.0
        assert heart.silent == 5
    assert heart.silent == 0


def test_a_request_that_is_called_off_is_no_sign_of_life():
    now = [0.0]
    heart = Heartbeat(lambda: now[0])
    with heart.asked():
        now[0] = 7.0
        with pytest.raises(ValueError, match="off"), heart.asked():
            raise ValueError("off")
        assert heart.silent == 7


class Engine:
    """Replies `text`, raises it, or hangs where there is none; tokens come every second with `tokens`."""

    at_once, longest = 4, 100

    def __init__(self, text=None, tokens=False):
        self.text, self.tokens, self.closed = text, tokens, asyncio.Event()
        self.heartbeat = Heartbeat(asyncio.get_running_loop().time)

    async def reply(self, request):
        if self.closed.is_set():
            raise StoppedError("The engine is closed.")
        with self.heartbeat.asked():
            if isinstance(self.text, Exception):
                raise self.text
            if self.tokens:
                for _ in range(1000):
                    await asyncio.sleep(1)
                    self.heartbeat.beat()
            if self.text is None:
                await self.closed.wait()
                raise StoppedError("The engine is closed.")
            return GeneratedReply(self.text, 3, "stop")

    async def close(self):
        self.closed.set()


rows_asked = []


def restarting(*engines, stuck_seconds=600):
    made, told, asked = list(engines), [], []
    rows_asked.append(asked)

    async def open_one(rows=None):
        asked.append(rows)
        engine = made.pop(0)()
        if isinstance(engine, Exception):
            raise engine
        return engine

    def tell(error, times):
        told.append((error and error.reason, times))

    async def opened():
        return RestartingEngine(await open_one(), open_one, stuck_seconds, tell)

    return opened, told


def test_one_that_hangs_is_closed_and_its_requests_are_asked_of_another():
    opened, told = restarting(Engine, lambda: Engine("yes"))

    async def ask():
        engine = await opened()
        replies = await asyncio.gather(*(engine.reply(REQUEST) for _ in range(5)))
        await engine.close()
        return [reply.text for reply in replies]

    texts, seconds = run(ask())
    assert texts == ["yes"] * 5
    assert 600 <= seconds < 602
    assert told == [(Reason.STUCK, 1), (None, 1)]


def test_one_that_gives_tokens_is_left_alone_however_long_a_reply_takes():
    opened, told = restarting(lambda: Engine("yes", tokens=True), stuck_seconds=2)

    async def ask():
        engine = await opened()
        reply = await engine.reply(REQUEST)
        await asyncio.sleep(5000)  # asked for nothing
        await engine.close()
        return reply.text

    assert run(ask())[0] == "yes"
    assert told == []


def test_one_whose_memory_ran_out_is_opened_again_for_fewer_replies_at_once():
    """And stays so when it is opened again for another reason."""
    opened, told = restarting(lambda: Engine(SHORT), lambda: Engine(DIED), lambda: Engine("yes"))

    async def ask():
        engine = await opened()
        reply = await engine.reply(REQUEST)
        await engine.close()
        return reply.text

    assert run(ask())[0] == "yes"
    assert rows_asked[-1] == [None, 2, 2]
    assert told == [(Reason.OUT_OF_MEMORY, 1), (Reason.PROCESS_DIED, 2), (None, 2)]


def test_one_that_dies_is_opened_again_but_not_for_ever():
    opened, told = restarting(*[lambda: Engine(DIED)] * MOST_STARTS)

    async def ask():
        engine = await opened()
        with pytest.raises(TemporaryError, match="died"):
            await engine.reply(REQUEST)
        await engine.close()

    run(ask())
    assert told == [(Reason.PROCESS_DIED, times) for times in range(1, MOST_STARTS)]


def test_one_that_cannot_be_opened_again_says_why():
    opened, _ = restarting(lambda: Engine(DIED), lambda: ModelError("The model is gone."))

    async def ask():
        engine = await opened()
        with pytest.raises(ModelError, match="gone"):
            await engine.reply(REQUEST)
        await engine.close()

    run(ask())


def test_closing_ends_what_is_asked_for():
    opened, told = restarting(Engine)

    async def ask():
        engine = await opened()
        asking = asyncio.create_task(engine.reply(REQUEST))
        await asyncio.sleep(1)
        await engine.close()
        with pytest.raises(StoppedError):
            await asking

    run(ask())
    assert told == []
