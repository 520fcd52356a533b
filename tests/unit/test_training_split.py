"""A run that continues with smaller micro-batches makes the very steps of the one that it continues."""

import pytest

from tunesmith.tokens.conversation import Sample

pytestmark = pytest.mark.engine
STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, Health, StepDataset, StepTrainer, plan_steps, training_arguments, small_spec, load
    import torch
    from tests.fixtures.steps import load, small_spec

    from tunesmith.training.health import Health
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.training_args import plan_steps, training_arguments


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    from tests.fixtures.steps import write_table

    labels = [3 + 3 * (n % 5) for n in range(23)]
    samples = [
        Sample([3, 5 + n % 8, 20 + n, *range(50 + n, 51 + n + many)], [0.0] * 4 + [1.0] * many)
        for n, many in enumerate(labels)
    ]
    return write_table(tmp_path_factory.mktemp("table") / "t", samples)


class Curve:
    """Losses, gradient norms, validation losses and final weights of a run."""

    def __init__(self, trainer, losses):
        self.losses = losses
        self.weights = {name: each.clone() for name, each in trainer.model.state_dict().items()}


def run(model, table, folder, budgets, *, packing="tree", dropout=0.0, checkpointing=False):
    """Train; `budgets` maps the step from which a limit holds to that limit, by resuming there.

    A limit is (tokens, samples).
    """
    from transformers import TrainerCallback, set_seed

    from tunesmith.training.adapters import add_trained

    class Until(TrainerCallback):
        def __init__(self, trainer, last, losses):
            self.trainer, self.last, self.losses = trainer, last, losses

        def on_step_end(self, args, state, control, **kwargs):
            trainer = self.trainer
            self.losses[state.global_step] = trainer.last_step.loss, trainer.validate(trainer.model).loss
            control.should_training_stop = state.global_step >= self.last
            return control

    training = {
        "maxSteps": STEPS, "perDeviceTrainBatchSize": 4, "gradientAccumulationSteps": 2, "learningRate": 1e-2,
        "packing": packing, "saveSteps": 1,
    }  # fmt: skip
    spec = small_spec(training, method={"lora": {"r": 4, "alpha": 8, "dropout": dropout}})
    losses, resume = {}, None
    for start, (tokens, samples) in budgets.items():
        until = min((later for later in budgets if later > start), default=STEPS)
        plan = plan_steps(spec, table, 1, 0)
        whole = len(plan[0])
        plan.limit(tokens, samples)
        assert len(plan[0]) > whole or samples == 4
        arguments = training_arguments(spec, folder, steps=STEPS, every=99, dtype="float32")
        set_seed(spec.training.seed)
        base = load(model)
        if checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

        trainer = StepTrainer(
            steps=StepDataset(table, plan, "tokenMean", 0),
            validation=table,
            stop_asked=lambda: False,
            health=Health(500, "output", list),
            model=add_trained(base, spec.method.lora, []),
            args=arguments,
        )
        trainer.add_callback(Until(trainer, until, losses))
        if packing == "tree":
            trainer.check_tree("auto")
        set_seed(spec.training.seed)
        trainer.train(resume_from_checkpoint=resume)
        resume = str(folder / f"checkpoint-{until}")
    return Curve(trainer, [losses[step + 1] for step in range(STEPS)])


def same(one, other, tolerance):
    """Whether two curves and their final weights agree within a relative tolerance; 0: bit for bit."""
    curves = torch.tensor(one.losses, dtype=torch.float64), torch.tensor(other.losses, dtype=torch.float64)
    assert torch.allclose(*curves, rtol=tolerance, atol=0)
    for name, weights in one.weights.items():
        assert torch.allclose(weights, other.weights[name], rtol=0, atol=10 * tolerance), name


@pytest.mark.parametrize(("packing", "dropout"), [("tree", 0.0), ("tree", 0.1), ("none", 0.1)])
def test_smaller_micro_batches_from_a_checkpoint_on_change_only_rounding(
    tiny_model, table, tmp_path, packing, dropout
):
    """Optimizer state, schedule, order and masks are those of the run, and so is the validation loss."""
    limits = {0: (None, 4), 2: (40, 2), 4: (1, 1)}
    whole = run(tiny_model, table, tmp_path / "a", {0: (None, 4)}, packing=packing, dropout=dropout)
    less = run(tiny_model, table, tmp_path / "b", limits, packing=packing, dropout=dropout)
    same(whole, less, 1e-5)
    assert whole.losses[0] != whole.losses[-1]


def test_with_the_same_settings_it_is_the_same_bit_for_bit_with_dropout_too(tiny_model, table, tmp_path):
    small = run(tiny_model, table, tmp_path / "a", {0: (40, 2)}, dropout=0.1)
    again = run(tiny_model, table, tmp_path / "b", {0: (40, 2), 3: (40, 2)}, dropout=0.1)
    same(small, again, 0)


def test_gradient_checkpointing_changes_nothing_and_repeats_the_dropout(tiny_model, table, tmp_path):
    without = run(tiny_model, table, tmp_path / "a", {0: (40, 2)}, dropout=0.1)
    on = run(tiny_model, table, tmp_path / "b", {0: (40, 2)}, dropout=0.1, checkpointing=True)
    same(without, on, 1e-6)


def test_packing_changes_no_mask(tiny_model, table, tmp_path):
    trees = run(tiny_model, table, tmp_path / "a", {0: (None, 4)}, dropout=0.1)
    padded = run(tiny_model, table, tmp_path / "b", {0: (None, 4)}, dropout=0.1, packing="none")
    same(trees, padded, 1e-4)
    without = run(tiny_model, table, tmp_path / "c", {0: (None, 4)}, dropout=0.0)
    assert without.losses[-1][0] != pytest.approx(trees.losses[-1][0], rel=1e-4)
