"""Decide whether gradient checkpointing is needed for the activations to fit in memory.

A sixth of what is left for them stays free, for what the estimate does not count. Pure: depends on numbers
only, not on devices.
"""

from __future__ import annotations

from tunesmith.figures import binary_size
from tunesmith.training.estimate.from_spec import left_for_activations, needs_checkpointing
from tunesmith.training.estimate.memory import estimate_memory
from tunesmith.training.estimate.setup import MemorySetup


def needs_gradient_checkpointing(setup: MemorySetup, free: int) -> tuple[bool, str]:
    """Return whether to use gradient checkpointing, and why, in one sentence for the log.

    `free` are the free bytes of the device (of a GPU, else of the main memory for one process) before the
    model is loaded.
    """
    parts = estimate_memory(setup)
    wanted, left = needs_checkpointing(setup, free), left_for_activations(parts, free)
    return wanted, (
        f"Gradient checkpointing is {'on' if wanted else 'off'}: activations of {setup.tokens:,} tokens need "
        f"about {binary_size(parts.activations)}; weights, gradients and optimizer leave about "
        f"{binary_size(max(left, 0))} of {binary_size(free)}."
    )
