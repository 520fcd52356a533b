"""A program that spends money until there is none: budget, journal and client as a job puts them together.

python -m tests.integration.spender URL FOLDER ATTEMPT MAX_USD
"""

import asyncio
import sys
from itertools import count, takewhile
from pathlib import Path

from tunesmith.api.dialogue import OpenAIEndpoint, PriceSpec
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.open import open_store
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.calls import Caller
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.ledger import past_spending
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits
from tunesmith.dialogue.money import Price, picodollars
from tunesmith.errors import BudgetError


def key(number):
    return f"budget/{number}"


def earlier(store, turn, folder):
    rows = CommittedRows(store, turn, folder)
    rows.load()
    return takewhile(lambda record: record is not None, (rows.get(key(number)) for number in count()))


class Unwritten:
    """A journal of tries that keeps nothing."""

    def hold(self, most, process):
        pass

    def write(self, record):
        pass

    async def flushed(self):
        pass


async def spend(url, attempt, budget, price):
    spec = OpenAIEndpoint.model_validate({"baseUrl": url, "model": "m"})
    async with Endpoint("e", spec, None, timeout=1.0) as endpoint:
        caller = Caller("e", endpoint, Limiter("e", EndpointLimits(4, None, None)), 2, price, budget)

        async def work(worker):
            for number in count():
                text = f"Attempt {attempt}, question {worker}/{number}. " * 5
                await caller.call(
                    endpoint.request([{"role": "user", "content": text}], 1.0, 150), Unwritten()
                )

        await asyncio.gather(*(work(worker) for worker in range(4)))


def main():
    url, folder, attempt, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    store = open_store(f"file://{folder / 'out'}")
    turn = begin_epoch(store, "job", attempt)
    before = past_spending(earlier(store, turn, folder / f"rows-{attempt}"))
    journal = Journal(store, turn, "pod-0", folder / f"disk-{attempt}")  # a disk that dies with its pod

    def write(record):
        assert journal.append(key(record["number"]), record, durable=True)
        journal.send()

    budget = Budget(picodollars(limit, up=False), write, before)
    print("spending", flush=True)
    try:
        asyncio.run(spend(url, attempt, budget, Price.of(PriceSpec(inputPerMillion=3, outputPerMillion=15))))
    except BudgetError as error:
        print(str(error).split(":")[0], flush=True)


if __name__ == "__main__":
    main()
