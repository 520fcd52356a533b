"""What SIGTERM means to a job: finish the step, save, and be gone before the launcher kills."""

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
    """Set by SIGTERM; looked at once a step."""

    asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the program was told to stop."""
        return self.asked_at is not None

    def listen(self) -> None:
        """Have SIGTERM set the flag instead of ending the process."""
        signal.signal(signal.SIGTERM, self._set)

    def _set(self, number: int, frame: Any) -> None:
        if self.asked_at is None:
            self.asked_at = time.monotonic()
        log.warning("Told to stop: the step under way is finished and saved.")

    def seconds_left(self) -> float | None:
        """Until the program is killed; None when nobody told it to stop."""
        return None if self.asked_at is None else self.asked_at + KILLED_AFTER - time.monotonic()

    def check(self) -> None:
        """Raises StoppedError if the flag is set."""
        if self.asked:
            raise StoppedError("The job was told to stop before it began to train. Run it again to go on.")
