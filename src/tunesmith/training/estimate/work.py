"""What a training run computes, from the prepared samples: steps, tokens and floating-point operations.

Counts the operations of matrix products, two per weight and token (arXiv:2001.08361), and of attention. The
steps are those of the run's own plan; of a long epoch some are looked at, spread evenly over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith.data.table import Table
from tunesmith.training.estimate.from_spec import Batch
from tunesmith.training.estimate.setup import MemorySetup
from tunesmith.training.sampler import Indices, StepPlan, micro_batches
from tunesmith.training.tree.packing import Bin, divide
from tunesmith.training.tree.tree import SortedSamples, sort_samples

LOOKED_AT = 48
"""Number of steps that are packed for the estimate."""


@dataclass(frozen=True, slots=True)
class StepWork:
    """Means per optimizer step: over all devices, but `slowest` and `rounds`, those of the slowest device.

    `pairs` are the (query, key) pairs of attention; `labels` the hidden states that have labels.
    """

    tokens: float
    computed: float
    labels: float
    pairs: float
    slowest: float
    rounds: float

    @property
    def balance(self) -> float:
        """The share of the work that the slowest device does."""
        return self.slowest / self.computed if self.computed else 1.0


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """The steps of a run, what one of them does, and its largest micro-batch."""

    samples: int
    sample_tokens: int
    steps: int
    step: StepWork
    batch: Batch
    looked_at: int


def training_work(plan: StepPlan, table: Table) -> TrainingWork:
    """Return what a run over the samples of a table computes on all devices of its plan."""
    world = plan.sizes.world
    epoch, labels = min(len(plan), plan.steps_per_epoch), table.labels
    count = min(LOOKED_AT, epoch)
    found = [_of_step(plan, table, labels, number * epoch // count, world) for number in range(count)]
    step = StepWork(*(float(np.mean([each[at] for each in found])) for at in range(6)))
    share = max((each[6] for each in found), default=1.0)
    batch = Batch(
        tokens=plan.most_tokens,
        labels=max(1, round(plan.most_tokens * share)),
        longest=plan.longest,
        several=step.rounds > 1,
    )
    order = table.order()
    return TrainingWork(len(order), int(table.lengths[order].sum()), len(plan), step, batch, count)


def _of_step(plan: StepPlan, table: Table, of_samples: Indices, index: int, world: int) -> tuple[float, ...]:
    """Return the fields of a StepWork for one step, and the largest share of labels in a micro-batch.

    `of_samples` are the labels of each sample of the table.
    """
    samples = plan.samples(index)
    labels = of_samples[samples]
    tokens = float(table.lengths[samples].sum())
    if plan.budget is None:
        return _padded(plan, table, samples, labels, world)
    step = sort_samples([table.ids(i) for i in samples.tolist()])
    rounds = divide(step, plan.budget, world)
    bins = [each for part in rounds for each in part]
    in_order = labels[step.order]
    kept = [min(each.tokens, int(in_order[each.start : each.stop].sum())) for each in bins]
    share = max(label / max(1, each.tokens) for label, each in zip(kept, bins, strict=True))
    return (
        tokens,
        float(sum(each.tokens for each in bins)),
        float(sum(kept)),
        float(sum(_pairs(step, each) for each in bins)),
        float(sum(part[0].tokens for part in rounds)),
        float(len(rounds)),
        share,
    )


def _pairs(step: SortedSamples, part: Bin) -> float:
    """Return the pairs of a tree: each token and those before it, shared ones once."""
    lengths = step.lengths[part.start : part.stop].astype(float)
    shared = step.shared[part.start : part.stop].astype(float).copy()
    shared[:1] = 0
    return float((lengths * (lengths + 1) - shared * (shared + 1)).sum() / 2)


def _padded(plan: StepPlan, table: Table, samples: Indices, labels: Indices, world: int) -> tuple[float, ...]:
    every = [micro_batches(samples, table.lengths, plan.sizes, rank) for rank in range(world)]
    sizes = np.array([[_padded_size(table, each) for each in mine] for mine in every])
    lengths = table.lengths[samples].astype(float)
    share = float((labels / np.maximum(1, lengths)).max(initial=0.0))
    return (
        float(lengths.sum()),
        float(sizes.sum()),
        float(labels.sum()),
        float((lengths**2).sum() / 2),
        float(sizes.max(axis=0).sum()),
        float(sizes.shape[1]),
        share,
    )


def _padded_size(table: Table, indices: Indices) -> int:
    return len(indices) * int(table.lengths[indices].max(initial=0))


def step_flops(setup: MemorySetup, work: StepWork) -> float:
    """Return the floating-point operations of one step, over all devices."""
    shape = setup.shape
    experts = shape.expert_layers * 3 * shape.hidden * shape.expert_inner * shape.active
    weights, trained = shape.linear + experts, 0 if setup.full else setup.trained
    backward = 2 if setup.full else 1  # of frozen weights only the input's gradient
    again = 1 if setup.checkpointing else 0
    per_token = 2 * weights * (1 + backward + again) + 2 * trained * (3 + again)
    of_pair = 2 * (shape.queries + shape.attended) * shape.layers * (3 + again)
    head = 2 * shape.embedding * (3 if setup.full else 2)
    return work.computed * per_token + work.pairs * of_pair + work.labels * head
