"""Threads as ranks, for what ranks say to each other."""

import pickle
import threading

from tunesmith.training.checkpoints import Ranks

ALONE = Ranks(0, 0, 1, lambda value: [value])


def on_ranks(world, nodes, work):
    """Run `work(ranks)` on threads as ranks, each node with its own local ranks."""
    barrier, values = threading.Barrier(world, timeout=20), [None] * world

    def gather_for(rank):
        def gather(value):
            values[rank] = pickle.loads(pickle.dumps(value))  # as between processes
            barrier.wait()
            made = list(values)
            barrier.wait()
            return made

        return gather

    errors = []

    def one(rank):
        try:
            work(Ranks(rank, rank % (world // nodes), world, gather_for(rank)))
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
