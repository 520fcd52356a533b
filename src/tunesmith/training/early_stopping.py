"""Whether a checkpoint is the end of a run, which the Trainer forgets on resume."""

from __future__ import annotations

from pathlib import Path

from transformers import EarlyStoppingCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState


def stopped_early(checkpoint: Path) -> bool:
    """Return whether early stopping had no patience left when the checkpoint was written."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    early = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if not early:
        return False
    waited = early["attributes"]["early_stopping_patience_counter"]
    return bool(waited >= early["args"]["early_stopping_patience"])
