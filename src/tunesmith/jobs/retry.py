"""Work with the storage that is waited for, while whoever waits still looks at what else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tunesmith.artifacts.background import OnTrouble, RetryingTask, ignore_trouble

Retry = Callable[[str, Callable[[], object]], None]
"""`retry_with_check` with its check: does work that has a name."""


def retry_with_check(
    name: str, work: Callable[[], object], check: Callable[[], None], tell: OnTrouble = ignore_trouble
) -> None:
    """Do work with the storage that goes on when called again, however long the storage is away.

    `check` is called all the time and may raise; `tell` hears of trouble.
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
