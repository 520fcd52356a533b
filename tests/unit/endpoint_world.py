"""A world without waiting: an endpoint played event by event, and a loop of virtual time."""

import asyncio
import heapq
import math
import random
import selectors
from itertools import count

from tests.standin.openai_rules import Meter, Settings


class Server:
    """Refuses what passes its limits, and everything in a storm; `tell`: it says for how long."""

    def __init__(self, rpm=None, tpm=None, window="sliding", burst=1.0, tell=True, storms=()):
        settings = Settings(window=window, burst=burst)
        self.requests, self.tokens = Meter(rpm, settings), Meter(tpm, settings)
        self.tell, self.storms = tell, storms

    def refuses(self, tokens, now):
        """Whether, and what it says; (False, None) lets the request in."""
        for start, end in self.storms:
            if start <= now < end:
                return True, end - now if self.tell else None
        wait = max(self.requests.wait(1, now), self.tokens.wait(tokens, now))
        if wait > 0:
            return True, wait if self.tell else None
        self.requests.take(1, now)
        self.tokens.take(tokens, now)
        return False, None


class World:
    """Calls that all want to be sent at once, limits under test, and a server."""

    def __init__(self, limits, server, latency=0.4, spread=0.0, way=0.01, jitter=0.0, seed=0):
        self.limits, self.server = limits, server
        self.latency, self.spread, self.way, self.jitter = latency, spread, way, jitter
        self.random, self.order, self.events, self.now = random.Random(seed), count(), [], 0.0
        self.sent, self.refused, self.done = [], [], []
        self.highest, self.waking, self.tickets = 0, math.inf, {}

    def at(self, time, action, *arguments):
        heapq.heappush(self.events, (time, next(self.order), action, arguments))

    def run(self, calls, estimate=300, used=300, until=math.inf):
        """Until all are answered; how long it took. `used` may be a function of a random generator."""
        self.estimate, self.used = estimate, used
        for number in range(calls):
            self.enter(number)
        self.pump()
        while self.events and len(self.done) < calls:
            time, _, action, arguments = heapq.heappop(self.events)
            if time > until:
                break
            self.now = time
            action(*arguments)
            self.pump()
        return self.now

    def enter(self, number, again=False):
        ticket = self.limits.enter(self.estimate, again)
        self.tickets[ticket] = number

    def pump(self):
        while (ticket := self.limits.go(self.now)) is not None:
            self.sent.append((self.now, self.tickets[ticket]))
            self.at(self.now + self.way + self.jitter * self.random.random(), self.arrive, ticket)
        self.highest = max(self.highest, self.limits.under_way)
        time = self.limits.next_time(self.now)
        if time < math.inf and (self.waking <= self.now or time < self.waking):
            self.waking = time
            self.at(time, lambda: None)

    def arrive(self, ticket):
        used = self.used(self.random) if callable(self.used) else self.used
        refused, retry_after = self.server.refuses(used, self.now)
        if refused:
            self.at(self.now + self.way, self.refuse, ticket, retry_after)
        else:
            spread = math.exp(self.spread * self.random.gauss(0, 1))
            self.at(self.now + self.latency * spread, self.answer, ticket, used)

    def refuse(self, ticket, retry_after):
        self.refused.append((self.now, retry_after))
        self.limits.refused(ticket, self.now, retry_after)
        self.enter(self.tickets.pop(ticket), again=True)

    def answer(self, ticket, used):
        self.done.append(self.tickets.pop(ticket))
        self.limits.answered(ticket, self.now, used)

    @property
    def refused_share(self):
        return len(self.refused) / len(self.sent)


class _Selector(selectors.DefaultSelector):
    loop = None

    def select(self, timeout=None):
        events = super().select(0 if timeout is not None else None)
        if not events and timeout:
            self.loop.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time."""

    def __init__(self):
        self.now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.set_exception_handler(lambda loop, context: None)  # tasks of a world that has ended

    def time(self):
        return self.now


def run(coroutine):
    """`asyncio.run` in virtual time; the result, and how many virtual seconds it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine), runner.get_loop().time()
