"""An engine in the pod while batches are awaited: closed after a while, and opened again when needed."""

import asyncio

import pytest
from tests.unit.endpoint_world import run

from tunesmith.dialogue.lull import LullDetector
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.jobs.resting_engine import REST_SECONDS, RestingEngine

REQUEST = GenerationRequest([1], "a", 0, None)


class Engine:
    at_once, longest = 4, 100

    def __init__(self):
        self.closed, self.heartbeat = 0, Heartbeat()

    async def reply(self, request):
        assert not self.closed
        await asyncio.sleep(2 * REST_SECONDS)
        return GeneratedReply("x", 1, "stop")

    async def close(self):
        self.closed += 1


class World:
    """An engine behind the wrapper, and every one that was opened."""

    def __init__(self):
        self.lull, self.opened = LullDetector(), [Engine()]
        self.lull.resume()
        self.engine = RestingEngine("small", self.opened[0], self.open, self.lull)

    async def open(self):
        await asyncio.sleep(1)
        self.opened.append(Engine())
        return self.opened[-1]

    @property
    def running(self):
        return [not engine.closed for engine in self.opened]


@pytest.mark.engine
def test_an_engine_is_closed_in_a_long_lull_and_opened_again_once_for_all_who_ask():
    async def life():
        world = World()
        world.lull.rest()
        await asyncio.sleep(REST_SECONDS + 1)
        assert world.running == [False]
        world.lull.resume()
        replies = await asyncio.gather(*(world.engine.reply(REQUEST) for _ in range(3)))
        assert [reply.text for reply in replies] == ["x"] * 3
        assert world.running == [False, True]
        await world.engine.close()
        assert world.running == [False, False]

    run(life())


def test_an_engine_that_is_used_or_soon_will_be_is_not_closed():
    async def life():
        world = World()
        world.lull.rest()
        await asyncio.sleep(REST_SECONDS / 2)
        world.lull.resume()
        await asyncio.sleep(2 * REST_SECONDS)
        assert world.running == [True]
        asking = asyncio.create_task(world.engine.reply(REQUEST))
        await asyncio.sleep(1)
        world.lull.rest()
        await asyncio.sleep(REST_SECONDS + 1)
        assert world.running == [True]
        await asking

    run(life())
