"""What `StepTrainer` takes from the inside of transformers' Trainer. Seen with transformers 5.19.0."""

import inspect
from importlib.metadata import version

import pytest

pytestmark = pytest.mark.engine
SEEN_WITH = "5.19.0"
OVERRIDDEN = {
    "_clip_grad_norm": ["self", "model"],
    "_get_grad_norm": ["self", "model", "grad_norm"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_rng_state": ["self", "checkpoint"],
    "_prepare_for_training": ["self", "max_steps", "train_dataloader", "resume_from_checkpoint"],
    "_save": ["self", "output_dir", "state_dict"],
    "_track_num_input_tokens": ["self", "inputs"],
    "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    "floating_point_ops": ["self", "inputs"],
    "get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "get_total_train_batch_size": ["self", "args"],
    "get_train_dataloader": ["self"],
    "save_model": ["self", "output_dir", "_internal_call"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
}
CALLED = {
    "_get_learning_rate": ["self"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
}


def test_the_trainers_inside_is_as_when_last_seen():
    from transformers import Trainer

    from tunesmith.training.resumable_trainer import ResumableTrainer
    from tunesmith.training.trainer import StepTrainer

    ours = vars(StepTrainer).keys() | vars(ResumableTrainer).keys()
    own = {name for name in ours if hasattr(Trainer, name) and not name.startswith("__")}
    assert own == OVERRIDDEN.keys()
    wanted, source = OVERRIDDEN | CALLED, inspect.getsource(Trainer)
    found = {name: getattr(Trainer, name, None) for name in wanted}
    parameters = {name: method and [*inspect.signature(method).parameters] for name, method in found.items()}
    changed = {name: now for name, now in parameters.items() if now != wanted[name]}
    changed |= {name: "is not called any more" for name in wanted if f"self.{name}(" not in source}
    assert not changed, (
        f"transformers {version('transformers')} has changed what StepTrainer relies on, "
        f"which was made for {SEEN_WITH}: {changed}"
    )
