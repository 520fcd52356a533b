"""Batches, loss, trainer, checkpoints."""
