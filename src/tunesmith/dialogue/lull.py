"""When all dialogues wait for batches: only then is a batch as large as it can be, and an engine of no use.

All in one event loop. Does not depend on what dialogues do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LullDetector:
    """Counts the dialogues that do anything but wait for a batch; calls its listeners if there are none."""

    def __init__(self) -> None:
        self._busy = 0
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` in each lull, once or more often."""
        self._listeners.append(listener)

    def resume(self) -> None:
        """Count one more active dialogue."""
        self._busy += 1

    def rest(self) -> None:
        """Count one active dialogue less: it waits for a batch, or has ended."""
        self._busy -= 1
        self.look()

    def look(self) -> None:
        """Call the listeners if there is a lull, after the event loop's pending callbacks."""
        if self.quiet:
            asyncio.get_running_loop().call_soon(self._tell)

    @property
    def quiet(self) -> bool:
        """Return whether there is a lull."""
        return self._busy == 0

    def _tell(self) -> None:
        for listener in self._listeners if self.quiet else ():
            listener()
