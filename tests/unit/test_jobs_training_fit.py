"""What a training takes of memory: the settings of its attempts, and the errors when they do not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
from tests.fixtures.steps import small_spec, write_table

from tunesmith.artifacts.open import open_store
from tunesmith.data.table import TableWriter
from tunesmith.errors import MemoryShortError, PermanentError, StorageTemporaryError
from tunesmith.jobs.memory_notes import LOADING, TRAINING, MemoryNotes
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.training_fit import TrainingFit
from tunesmith.tokens.conversation import Sample
from tunesmith.training.checkpoints import Ranks
from tunesmith.training.fit import Fit
from tunesmith.training.training_args import plan_steps

LENGTHS = [10, 40, 20, 30]
REFUSED = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
ALONE = Ranks(0, 0, 1, lambda value: [value])


@pytest.fixture
def table(tmp_path):
    with TableWriter(tmp_path / "t") as writer:
        for group, length in enumerate(LENGTHS):
            sample = Sample([group + 3] * length, [0.0, *[1.0] * (length - 1)])
            writer.add(sample, group=group)
    (tmp_path / "t" / "places").write_text("".join(f"train.jsonl, line {n}\n" for n in range(1, 5)))
    from tunesmith.data.table import Table

    return Table(tmp_path / "t")


class Attempts:
    """The attempts of a job, one after the other."""

    def __init__(self, folder, table, training=None, **spec):
        self.spec = small_spec({"perDeviceTrainBatchSize": 4, **(training or {})}, **spec)
        self.store, self.table, self.number, self.short = open_store(str(folder)), table, 0, []

    def begin(self):
        self.number += 1
        notes = MemoryNotes(self.store, "job", self.number, tuple(self.short))
        world = SimpleNamespace(rank=0)
        self.session = SimpleNamespace(
            spec=self.spec, notes=notes, world=world, first=True, progress=Progress()
        )
        self.plan = plan_steps(self.spec, self.table, 1, 0)
        return TrainingFit(self.session, self.plan, self.table)

    def train(self, asked=False):
        fit = self.begin()
        fit.loads(ALONE, asked, 0)
        fit.trains(ALONE)
        return fit

    def runs_short(self):
        self.short.append(self.number)


@pytest.fixture
def attempts(tmp_path, table):
    return Attempts(tmp_path / "out", table)


def test_the_first_attempt_has_the_settings_of_the_manifest(attempts):
    fit = attempts.train()
    assert fit.fit == Fit(160, 4, False, "none")
    assert attempts.plan.budget == 160
    assert "fit" not in attempts.session.progress.snapshot()


def test_the_next_one_has_half_and_says_so(attempts):
    attempts.train()
    attempts.runs_short()
    fit = attempts.train()
    assert fit.fit == Fit(80, 2, False, "none")
    assert (attempts.plan.budget, attempts.plan.sizes.micro_batch) == (80, 2)
    shown = {"tokensPerDevice": 80, "gradientCheckpointing": False, "offload": "none"}
    assert attempts.session.progress.snapshot()["fit"] == shown


def test_one_that_ended_otherwise_is_followed_by_the_same(attempts):
    attempts.train()
    attempts.runs_short()
    assert [attempts.train().fit.tokens for _ in range(3)] == [80, 80, 80]


def test_samples_that_are_padded_since_the_model_has_no_trees_are_halved(attempts):
    fit = attempts.begin()
    fit.loads(ALONE, False, 0)
    attempts.plan.budget = None  # as the check of trees does
    fit.trains(ALONE)
    attempts.runs_short()
    assert attempts.train().fit.samples == 2
    assert attempts.plan.sizes.micro_batch == 2


def test_gradient_checkpointing_that_was_on_stays_on_whatever_is_estimated_later(attempts):
    assert attempts.train(asked=True).fit.gradient_checkpointing
    attempts.runs_short()
    assert attempts.train(asked=False).fit == Fit(80, 2, True, "none")


def test_a_model_that_could_not_be_loaded_is_offloaded_at_once(tmp_path, table):
    attempts = Attempts(tmp_path / "out", table, deepspeed={"zeroStage": 3})
    attempts.begin().loads(ALONE, False, 0)
    attempts.runs_short()
    fit = attempts.begin()
    assert fit.fit == Fit(160, 4, False, "all")
    assert fit.spec.deepspeed.offload == "all"
    assert attempts.spec.deepspeed.offload == "none"
    assert attempts.session.notes.last("samplesPerDevice")[1] == LOADING


def trainer(table=None, samples=(), step=6):
    at_work = None if table is None else (table, np.array(samples))
    return SimpleNamespace(state=SimpleNamespace(global_step=step), at_work=at_work)


def test_a_step_that_does_not_fit_is_explained_and_noted(attempts, table):
    fit = attempts.train()
    with pytest.raises(MemoryShortError) as caught, fit.explained(trainer(table, [1, 3])):
        raise REFUSED
    assert caught.value.message == (
        "Step 7 does not fit into memory: a micro-batch of 70 tokens, with at most 160 tokens per "
        f"micro-batch, gradient checkpointing off ({REFUSED}). The next attempt continues from the last "
        "checkpoint with at most 80 tokens per micro-batch, gradient checkpointing off."
    )
    (note,) = MemoryNotes(attempts.store, "job", 2, ()).all
    assert note["part"] == TRAINING
    del note["outOfMemory"]["time"]
    assert note["outOfMemory"] == {"step": 7, "rank": 0, "tokens": 70, "samples": 2, "message": str(REFUSED)}


def test_memory_that_runs_out_between_micro_batches(attempts):
    with pytest.raises(MemoryShortError, match="the optimizer"), attempts.train().explained(trainer()):
        raise MemoryError


@pytest.mark.parametrize("error", [ValueError("x"), StorageTemporaryError("out of memory, says the server")])
def test_other_errors_are_passed_on(attempts, error):
    with pytest.raises(type(error)) as caught, attempts.train().explained(trainer()):
        raise error
    assert caught.value is error


def to_the_end(attempts):
    """Run short until the last settings; return their fit."""
    fit = attempts.train()
    for _ in range(4):
        attempts.runs_short()
        fit = attempts.train()
    assert fit.fit == Fit(1, 1, True, "none")
    return fit


ONE = "with one sample per micro-batch, of at most 40 tokens, gradient checkpointing on"


def test_one_sample_that_does_not_fit_alone_is_named(attempts, table):
    fit = to_the_end(attempts)
    with pytest.raises(PermanentError) as caught, fit.explained(trainer(table, [3])):
        raise REFUSED
    assert caught.value.reason == "OutOfMemory"
    assert caught.value.message == (
        f"One sample alone does not fit into memory: 30 tokens, of train.jsonl, line 4, {ONE} ({REFUSED}). "
        "Set training.maxLength to less than 30, leave that record out, or give the job more memory "
        "(resources.memory, or a larger GPU)."
    )


def test_where_the_kernel_killed_the_last_one_it_is_the_longest_sample(attempts):
    to_the_end(attempts)
    attempts.runs_short()
    with pytest.raises(PermanentError, match=rf"40 tokens, of train\.jsonl, line 2, {ONE}\. Set"):
        attempts.begin()


def test_a_table_of_an_earlier_version_names_no_record(tmp_path):
    table = write_table(tmp_path / "t", [Sample([3, 4], [0.0, 1.0])])
    assert table.place(0) == ""
