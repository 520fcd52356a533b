"""The steps of a run as the Trainer's data: one item is one optimizer step of one rank."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset

from tunesmith.data.table import Table
from tunesmith.training.batches import AttentionPath, MicroBatch, collate, collate_tree
from tunesmith.training.device import CopyStream
from tunesmith.training.sampler import Indices, StepPlan
from tunesmith.training.weighting import denominator


@dataclass(frozen=True, slots=True)
class StepData:
    """One optimizer step of one rank: its micro-batches and their part of the denominator.

    `samples` are those of each micro-batch. `copied` is what the device must wait for before it computes.
    """

    batches: list[MicroBatch]
    denominator: float
    samples: list[Indices] = field(default_factory=list)
    copied: torch.cuda.Event | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens of the samples of this rank's part of the step."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def computed(self) -> int:
        """The number of tokens that the model computes: fewer with shared prefixes, more with padding."""
        return sum(batch.computed for batch in self.batches)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one optimizer step over all ranks: loss, tokens of the samples, tokens computed."""

    loss: float
    tokens: int
    computed: int


class StepDataset(Dataset[StepData]):
    """The run's steps. While one is computed, a thread prepares the next and copies it to the device."""

    def __init__(self, table: Table, plan: StepPlan, reduction: str, pad_id: int) -> None:
        self.table, self.plan, self.reduction, self.pad_id = table, plan, reduction, pad_id
        self.path: AttentionPath = "auto"
        self._copies = CopyStream(torch.device("cpu"))
        self._ahead: dict[int, Future[StepData]] = {}
        self._thread = ThreadPoolExecutor(1, "steps")

    def send_to(self, device: torch.device) -> None:
        """Copy each step to a device from now on."""
        self._copies = CopyStream(device)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> StepData:
        if not 0 <= index < len(self):
            raise IndexError(index)
        future = self._ahead.pop(index, None)
        self._ahead.clear()  # a resumed run jumps
        item = future.result() if future else self._thread.submit(self._make, index).result()
        if index + 1 < len(self):
            self._ahead[index + 1] = self._thread.submit(self._make, index + 1)
        return item

    def _make(self, index: int) -> StepData:
        micro = self.plan[index]
        with self._copies.open():
            batches = [self.batch(self.table, indices).on(self._copies.device) for indices in micro]
        total = sum(denominator(self.table, m, self.reduction) for m in micro)
        return StepData(batches, total, micro, self._copies.mark())

    def batch(self, table: Table, indices: Indices) -> MicroBatch:
        """Return samples of a table in the form that the plan requires: a tree, or padded rows."""
        if self.plan.budget is None:
            return collate(table, indices, self.reduction, self.pad_id)
        return collate_tree(table, indices, self.reduction, self.pad_id, self.path)

    def disable_trees(self) -> None:
        """Pad from now on. The steps have the same samples as before."""
        self._ahead.clear()
        self.plan.budget = None
