"""What the parts of a DialogueGenJob's run share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.artifacts.store import Store
from tunesmith.dialogue.prices import price_sentences
from tunesmith.jobs.memory_notes import MemoryNotes
from tunesmith.jobs.output_lock import (
    ExistingOutput,
)
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.retry import retry_with_check
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.world import World
from tunesmith.plan.run import Run

LAST_WRITE_SECONDS = 4.0
"""How long a record of the budget may take once the program was told to stop."""


@dataclass(slots=True)
class DialogueSession:
    """What the parts of a run share."""

    run: Run
    spec: DialogueGenSpec
    world: World
    progress: Progress
    store: Store
    found: ExistingOutput
    stop: StopFlag
    notes: MemoryNotes
    disk: str = ""
    """Where rows are written before they are in the store (`disk.disk_name`)."""

    @property
    def folder(self) -> Path:
        """Scratch of this start."""
        return self.world.node_folder

    def retry(self, name: str, work: Callable[[], object]) -> None:
        """Do work with the storage, however long that is away."""
        retry_with_check(name, work, self.stop.check, self.progress.teller(name))

    def retry_write(self, name: str, work: Callable[[], object]) -> None:
        """The same, also when the program was asked to stop: then for some seconds, since little is left."""
        began = time.monotonic()

        def check() -> None:
            asked = self.stop.asked_at
            if asked is not None and time.monotonic() - max(asked, began) > LAST_WRITE_SECONDS:
                self.stop.check()

        retry_with_check(name, work, check, self.progress.teller(name))

    def prices(self) -> list[str]:
        """Return which price counts for each endpoint."""
        return price_sentences(cast(DialogueGenSpec, self.run.spec))
