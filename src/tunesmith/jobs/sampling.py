"""Sample all planned replies to prompts, on all pods, for RejectionSampleJob and evaluations.

Every pod runs this. Afterwards all rows are committed to the journal, for the caller to use.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.artifacts.journal.fencing import Epoch, begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.store import Store
from tunesmith.data.prompts.load import Prompts
from tunesmith.jobs.engine_pool import EnginePool, engine_command, stuck_seconds
from tunesmith.jobs.engine_settings import EngineSettings
from tunesmith.jobs.memory_notes import MemoryNotes
from tunesmith.jobs.metrics import GPU_MEMORY
from tunesmith.jobs.progress import Progress, Trouble
from tunesmith.jobs.rendezvous import PodGroup, wait_for
from tunesmith.jobs.retry import retry_with_check
from tunesmith.jobs.rows_notes import RowsNotes
from tunesmith.jobs.world import World
from tunesmith.names import JOURNAL
from tunesmith.sampling.rows import planned_keys

log = logging.getLogger(__name__)
MOST_OF_A_SHARD = 64


@dataclass(slots=True)
class SamplingRun:
    """One sampling: `name` is unique within the job. `check` may raise, which ends it."""

    name: str
    task: EngineSettings
    store: Store
    prompts: Prompts
    world: World
    pods: PodGroup
    progress: Progress
    check: Callable[[], None]
    notes: MemoryNotes
    phase: str = "sampling"

    def run(self, engines: int) -> Epoch:
        """Sample everything that is missing. Return the journal's epoch when all pods are done."""
        epoch = self._begin()
        folder = self.world.node_folder / f"engines-{self.name}"
        folder.mkdir(parents=True, exist_ok=True)
        self.task.save(folder / "task.json")
        self._send_left(epoch)
        size = shard_size(len(self.prompts), engines * self.world.size)
        shown = SharedProgress(self)
        command = engine_command(folder / "task.json")
        rows = RowsNotes(self.notes, self.progress, first=self.world.rank == 0)
        started = EnginePool(
            command,
            engines,
            lambda: self._shard(size),
            stuck_seconds=stuck_seconds(self.task.engine),
            show=self._show,
            rows=rows.most(),
        )

        def tell(tally: Counter[str]) -> None:
            rows.have(started.rows)
            shown.tell(tally, started.trouble, started.gpu_memory)

        started.run(self.check, tell)
        self._meet("drawn", shown.refresh)
        shown.refresh()  # with the last pod's counts
        return epoch

    def _show(self, reply: Mapping[str, Any]) -> None:
        """Show a reply on the page of the running job."""
        where = "" if self.phase == "sampling" else f", {self.phase}"
        self.progress.live.latest(f"{reply['name']}{where}", {**reply, "name": f"{reply['name']}{where}"})

    def rows(self, epoch: Epoch) -> CommittedRows:
        """Return all rows, checked to be the planned ones. For rank 0, after `run`."""
        self.progress.update(phase="gathering the rows", **{GPU_MEMORY: None})
        rows = CommittedRows(self.store, epoch, self.world.node_folder / f"rows-{self.name}")
        self.retry("Gathering the rows", rows.load)
        rows.check(planned_keys(self.prompts.ids(), self.task.sampling.num_samples))
        return rows

    def retry(self, name: str, work: Callable[[], object]) -> None:
        """Retry work with the storage until it succeeds."""
        retry_with_check(name, work, self.check, self.progress.teller(name))

    def forget_local(self) -> None:
        """Remove the journal on this disk, which is in the storage too. For rank 0."""
        shutil.rmtree(self.task.journal, ignore_errors=True)

    def forget(self) -> None:
        """Remove what only an unfinished sampling needs: its journal, here and in the storage. For rank 0."""
        self.forget_local()
        self.store.delete([entry.key for entry in self.store.list(f"{JOURNAL}/")])

    def _begin(self) -> Epoch:
        """Acquire the epoch, on rank 0 first: stores without conditional writes require that."""
        if self.world.rank == 0:
            epoch = begin_epoch(self.store, self.task.job, self.task.attempt)
            self.pods.set(f"{self.name}/begun", "yes")
            return epoch
        wait_for(self.pods, f"{self.name}/begun", self.check)
        return begin_epoch(self.store, self.task.job, self.task.attempt)

    def _send_left(self, epoch: Epoch) -> None:
        """Commit the rows that a killed process left on this disk."""
        for number, folder in enumerate(sorted(self.task.journal.glob("engine-*"))):
            journal = Journal(self.store, epoch, f"pod-{self.world.rank}-left-{number}", folder)
            try:
                self.retry("Upload of rows", journal.send)
            finally:
                journal.close()
        # Samplers must see what others have left.
        self._meet("sent")

    def _shard(self, size: int) -> range | None:
        start = self.pods.next_shard(self.name) * size
        return range(start, min(start + size, len(self.prompts))) if start < len(self.prompts) else None

    def _meet(self, point: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until all pods have arrived."""

        def check() -> None:
            meanwhile()
            self.check()

        self.pods.set(f"{self.name}/{point}/{self.world.rank}", "yes")
        for rank in range(self.world.size):
            wait_for(self.pods, f"{self.name}/{point}/{rank}", check)


class SharedProgress:
    """Progress over all pods: each shares its counts, the first adds them up."""

    def __init__(self, sampling_run: SamplingRun, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampling_run, self._name, self._clock = sampling_run, f"{sampling_run.name}/tally", clock
        self._began: float | None = None  # when the first engine was ready and got requests
        self._own: Counter[str] = Counter()
        self._trouble: Trouble | None = None
        self._gpu_memory: int | None = None

    def tell(
        self, tally: Counter[str], trouble: Trouble | None = None, gpu_memory: int | None = None
    ) -> None:
        """Update with the counts of this pod's engines so far, what they wait for and take of a GPU."""
        self._own, self._trouble, self._gpu_memory = tally, trouble, gpu_memory
        self.refresh()

    def refresh(self) -> None:
        """Share this pod's counts, or show those of all."""
        sampling_run, tally = self._sampling_run, self._own
        if sampling_run.world.rank:
            trouble = None if self._trouble is None else asdict(self._trouble)
            sampling_run.pods.set(f"{self._name}/{sampling_run.world.rank}", json.dumps([tally, trouble]))
            return
        sampling_run.progress.trouble("engines of pod 0", self._trouble)
        for rank in range(1, sampling_run.world.size):
            counts, told = json.loads(sampling_run.pods.get(f"{self._name}/{rank}") or "[{}, null]")
            tally = tally + Counter(counts)
            sampling_run.progress.trouble(f"engines of pod {rank}", None if told is None else Trouble(**told))
        # What an engine had done of a shard when it died is counted again by its replacement.
        done, total = min(tally["prompts"], len(sampling_run.prompts)), len(sampling_run.prompts)
        seconds = self._seconds(bool(tally["ready"]))
        sampling_run.progress.update(
            phase=sampling_run.phase if tally["ready"] else f"{sampling_run.phase}: starting the engines",
            step=done,
            total=total,
            prompts=done,
            accepted=tally["accepted"],
            engineRestarts=tally["restarts"] or None,
            acceptanceRate=tally["accepted"] / tally["replies"] if tally["replies"] else None,
            tokensPerSecond=tally["tokens"] / seconds if tally["tokens"] and seconds > 1 else None,
            secondsLeft=seconds / done * (total - done) if done else None,
            **{GPU_MEMORY: self._gpu_memory},
        )

    def _seconds(self, ready: bool) -> float:
        """Return how long this start has been sampling: replies in flight have cost time too."""
        now = self._clock()
        if self._began is None and ready:
            self._began = now
        return 0.0 if self._began is None else now - self._began


def shard_size(prompts: int, engines: int) -> int:
    """Return the prompts per shard: few enough that all engines finish at about the same time."""
    return max(1, min(MOST_OF_A_SHARD, prompts // (engines * 8)))
