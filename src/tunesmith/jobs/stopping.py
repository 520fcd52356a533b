"""Handle SIGTERM: finish the step, save, and exit before the launcher kills."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import StoppedError

log = logging.getLogger(__name__)
KILLED_AFTER = 30.0
"""Seconds between torchrun's SIGTERM and its SIGKILL."""


@dataclass(slots=True)
class StopFlag:
    """Set by SIGTERM; checked once per step."""

    asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Return whether the program was asked to stop."""
        return self.asked_at is not None

    def listen(self) -> None:
        """Have SIGTERM set the flag instead of killing the process."""
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: Any) -> None:
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        log.warning("Stopping: the current step is finished and saved.")

    def seconds_left(self) -> float | None:
        """Return the seconds until the program is killed; None if it was not asked to stop."""
        return None if self.asked_at is None else self.asked_at + KILLED_AFTER - time.monotonic()

    def check(self) -> None:
        """Raise StoppedError if the flag is set."""
        if self.asked:
            raise StoppedError("The job was stopped. Run it again to resume.")
