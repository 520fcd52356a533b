"""Work with the storage that is retried, while the caller still checks for other events."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tunesmith.artifacts.background import OnTrouble, RetryingTask, ignore_trouble

Retry = Callable[[str, Callable[[], object]], None]
"""`retry_with_check` with its check: does named work."""


def retry_with_check(
    name: str, work: Callable[[], object], check: Callable[[], None], tell: OnTrouble = ignore_trouble
) -> None:
    """Retry resumable work with the storage until it succeeds.

    `check` is called continuously and may raise; `tell` gets troubles.
    """
    changed = threading.Event()

    def once(task: RetryingTask) -> None:
        work()

    task = RetryingTask(name, once, changed, tell=tell)
    task.expedite()
    try:
        while not task.done:
            changed.wait(0.2)
            changed.clear()
            check()
    finally:
        task.cancel()
    if task.error is not None:
        raise task.error
