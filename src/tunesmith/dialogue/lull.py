"""When all dialogues wait for batches: only then is a batch as large as it can be, and an engine of no use.

All in one event loop. Does not depend on what dialogues do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LullDetector:
    """Counts the dialogues that do anything else than wait for a batch, and tells when there are none."""

    def __init__(self) -> None:
        self._busy = 0
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` in each lull, once or more often."""
        self._listeners.append(listener)

    def resume(self) -> None:
        """One more has something to do."""
        self._busy += 1

    def rest(self) -> None:
        """One of them waits for a batch, or is at its end."""
        self._busy -= 1
        self.look()

    def look(self) -> None:
        """Tell the listeners if there is a lull, once all is done that is about to be done."""
        if self.quiet:
            asyncio.get_running_loop().call_soon(self._tell)

    @property
    def quiet(self) -> bool:
        """Return whether there is a lull."""
        return self._busy == 0

    def _tell(self) -> None:
        for listener in self._listeners if self.quiet else ():
            listener()
