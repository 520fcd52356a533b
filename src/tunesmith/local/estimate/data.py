"""The work of a training run: from the prepared samples, or from a number of tokens if there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.cache import prepare_once
from tunesmith.data.lengths import longest_sample
from tunesmith.data.prepared import Prepared
from tunesmith.engines.load import vocabulary_size
from tunesmith.engines.positions import max_positions
from tunesmith.errors import StoragePermanentError, StorageTemporaryError
from tunesmith.local.estimate.model import DescribedModel
from tunesmith.local.estimate.options import EstimateOptions
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.training.estimate.from_spec import Batch
from tunesmith.training.estimate.work import LOOKED_AT, StepWork, TrainingWork, training_work
from tunesmith.training.sampler import total_steps
from tunesmith.training.training_args import plan_steps, sizes

SAMPLE_TOKENS = 512
"""Tokens of a sample on average, if nothing is known."""


@dataclass(frozen=True, slots=True)
class DataWork:
    """The work, how sure it is, and whether the number of steps is known."""

    work: TrainingWork
    notes: tuple[str, ...] = ()
    known: bool = True


def data_work(
    asked: PreviewRequest, spec: FineTuneSpec, model: DescribedModel, options: EstimateOptions, world: int
) -> DataWork:
    """Return what a run computes. Data that is not there is assumed, which a note says."""
    if options.tokens is not None:
        return _assumed(spec, model, options, world)
    try:
        return prepared_work(spec, _prepared(asked, spec, model), world)
    except (StoragePermanentError, StorageTemporaryError) as error:
        found = _assumed(spec, model, options, world)
        why = f"The data was not read: {error.message}"
        return DataWork(found.work, (why, *found.notes), spec.training.max_steps is not None)


def prepared_work(spec: FineTuneSpec, prepared: Prepared, world: int) -> DataWork:
    """Return the work of a run over prepared samples."""
    work = training_work(plan_steps(spec, prepared.train, world, 0), prepared.train)
    some = f"From {work.looked_at} steps of the first epoch, packed as training does."
    return DataWork(work, (some,) if work.looked_at == LOOKED_AT else ())


def _prepared(asked: PreviewRequest, spec: FineTuneSpec, model: DescribedModel) -> Prepared:
    with asked.counting("reading the data") as status:
        return prepare_once(
            asked.cache,
            spec,
            model.tokenizer,
            asked.options,
            lambda name, records: status.records(records, name),
            first=asked.first,
            vocab_size=vocabulary_size(model.files.base),
            positions=max_positions(model.files.base),
        )[1]


def _assumed(spec: FineTuneSpec, model: DescribedModel, options: EstimateOptions, world: int) -> DataWork:
    """Return the work of samples that share nothing, each of an average length, all tokens labels."""
    training, step = spec.training, sizes(spec, world, world)
    longest = longest_sample(training.max_length, max_positions(model.files.base))
    average = min(longest, options.sample_tokens or SAMPLE_TOKENS)
    samples = max(1, round(options.tokens / average)) if options.tokens else step.step
    tokens = samples * average
    steps = total_steps(samples, step, training.num_train_epochs, training.max_steps)
    asked = training.tokens_per_device
    tree = training.packing == "tree"
    budget = max(longest, step.micro_batch * longest if asked == "auto" or not tree else asked)
    of_step = float(min(step.step, samples) * average)
    in_batch = budget // average * average if tree else step.micro_batch * average
    rounds = math.ceil(of_step / (max(1, in_batch) * world))
    of_step_work = StepWork(of_step, of_step, of_step, of_step * average / 2, of_step / world, rounds)
    batch = Batch(budget, budget, longest, rounds > 1)
    note = (
        f"Assumed: samples of {average:,} tokens on average, the longest of {longest:,}, which share "
        "nothing; every token a label."
    )
    return DataWork(TrainingWork(samples, tokens, steps, of_step_work, batch, 0), (note,))
