"""Work with the storage that is waited for, while whoever waits still looks at what else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tunesmith.artifacts.retry import Task, Tell, nobody

Wait = Callable[[str, Callable[[], object]], None]
"""`patiently` with its check: does work that has a name."""


def patiently(name: str, work: Callable[[], object], check: Callable[[], None], tell: Tell = nobody) -> None:
    """Do work with the storage that goes on when called again, however long the storage is away.

    `check` is called all the time and may raise; `tell` hears of trouble.
    """
    changed = threading.Event()

    def once(task: Task) -> None:
        work()

    task = Task(name, once, changed, tell=tell)
    task.hurry()
    try:
        while not task.done:
            changed.wait(0.2)
            changed.clear()
            check()
    finally:
        task.cancel()
    if task.error is not None:
        raise task.error
