"""State shared by the parts of a FineTuneJob's run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import Store
from tunesmith.jobs.memory_notes import MemoryNotes
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.stopping import StopFlag
from tunesmith.jobs.world import World
from tunesmith.plan.run import Run
from tunesmith.training.heartbeat import HangDetector


@dataclass(slots=True)
class TrainingSession:
    """State shared by the parts of a run on one rank."""

    run: Run
    spec: FineTuneSpec
    world: World
    progress: Progress
    store: Store
    stop: StopFlag
    hang_detector: HangDetector
    notes: MemoryNotes
    folder: Path
    """Files that become the output, on rank 0."""
    started: float = field(default_factory=time.monotonic)

    @property
    def patient(self) -> RetryingStore:
        """Return the store with retries; uploads of checkpoints have their own."""

        def check() -> None:
            self.hang_detector.beat(phase="waiting for the storage")
            self.stop.check()

        return RetryingStore(self.store, check, self.progress.teller("storage"), answered=True)

    @property
    def first(self) -> bool:
        """Return whether this is rank 0."""
        return self.world.rank == 0
