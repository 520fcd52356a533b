"""How many requests a server takes in one batch, and when it is believed that it takes none."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.dialogue.batch.run import BatchedCall
from tunesmith.dialogue.calls import PAUSES
from tunesmith.errors import EndpointError

_FULL = ("token_limit", "enqueued", "queue", "too large")
"""Words of a server that takes no batch of this size now."""
MOST_REQUESTS, MOST_BYTES = 50_000, 100 << 20
"""Of one file; OpenAI takes 200 MB."""
FAILED_BATCHES = 3
"""Batches in a row that the server refuses as a whole, after which it is believed."""


class BatchSize:
    """Learns from batches that a server refuses as a whole."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._most, self._failed = endpoint, MOST_REQUESTS, 0
        self.alone = False
        """Whether a batch is to be sent only when no other is under way."""

    def part(self, queue: Sequence[BatchedCall]) -> Sequence[BatchedCall]:
        """Return as many of the first requests as a file takes."""
        size = 0
        for count, asked in enumerate(queue[: self._most]):
            size += len(asked.line())
            if count and size > MOST_BYTES:
                return queue[:count]
        return queue[: self._most]

    def accepted(self) -> None:
        """Note that the server has dealt with a batch."""
        self._failed = 0

    def refused(self, message: str, requests: int, running: int) -> float:
        """Note that one of `running` batches was refused. Return the seconds to wait before the next one.

        Raise EndpointError if it is the endpoint's fault, which a smaller or later batch does not mend.
        """
        full = any(word in message.lower() for word in _FULL)
        if full and running == 1 and requests > 1:
            self._most = max(1, requests // 2)
        else:
            self._failed += not (full and running > 1)
        self.alone = self.alone or full
        if self._failed >= FAILED_BATCHES:
            raise EndpointError(
                f"endpoints.{self._endpoint}.openai.batch: the server rejects every batch: "
                f"{message.rstrip('.')}. Change what it names, or remove batch."
            )
        return PAUSES[self._failed]
