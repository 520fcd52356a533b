"""transformers' Trainer with our checkpoints, which others load and any number of processes resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, set_seed

from tunesmith.training.adapters import has_adapters, load_trained
from tunesmith.training.deepspeed import runtime
from tunesmith.training.deepspeed.resharding import load_checkpoint
from tunesmith.training.export import save_checkpoint
from tunesmith.training.random_numbers import new_seed, saved_by


class ResumableTrainer(Trainer):  # type: ignore[misc]
    """Saves and loads checkpoints. `_beat` is called when every rank has saved its part."""

    _beat: Callable[[], None]

    def computed_in(self, base: Any) -> torch.dtype:
        """Return the dtype that the model computes in: autocast's, else that of its weights."""
        if self.args.bf16 or self.args.fp16:
            return torch.bfloat16 if self.args.bf16 else torch.float16
        found: torch.dtype = next(p.dtype for p in base.parameters() if p.is_floating_point())
        return found

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint as others load them; every rank takes part.

        What DeepSpeed itself resumes from is written with the optimizer's state, each rank its share.
        """
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        weights = self.whole_weights()
        if self.args.should_save:
            self._save(output_dir, weights)
        self._beat()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write weights and config. transformers 5.20 and later call it on every rank; one writes."""
        if not self.args.should_save:
            return
        model = self.accelerator.unwrap_model(self.model)
        dtype = self.computed_in(model) if self.is_deepspeed_enabled else None
        save_checkpoint(model, Path(output_dir or self.args.output_dir), state_dict, dtype)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if has_adapters(self.model):
            load_trained(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> Any:
        """Load DeepSpeed's part of a checkpoint ourselves, whatever number of processes wrote it."""
        if resume_from_checkpoint is None or not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self.load_weights(Path(resume_from_checkpoint))
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore this rank's random numbers, or begin new ones if the number of processes has changed."""
        world, rank = self.args.world_size, self.args.process_index
        if checkpoint is None or saved_by(Path(checkpoint)) == world:
            super()._load_rng_state(checkpoint)
        else:
            set_seed(new_seed(self.args.seed, self.state.global_step, rank, world))

    def load_weights(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, with DeepSpeed the optimizer too. Every rank takes part."""
        if self.is_deepspeed_enabled:
            load_checkpoint(self.model_wrapped, checkpoint, strict=not has_adapters(self.model))
        else:
            self._load_from_checkpoint(str(checkpoint))

    def whole_weights(self) -> dict[str, torch.Tensor] | None:
        """Return the trained weights on rank 0 if the model itself has only a share of them; else None."""
        return runtime.whole_weights(self) if self.is_deepspeed_enabled else None
