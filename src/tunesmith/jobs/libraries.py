"""Settings of libraries that hold for a whole job, in the environment that all of its processes inherit."""

from __future__ import annotations

import os


def set_up_libraries() -> None:
    """Make the settings. Call this before torch is imported."""
    # Checkpoints come from the output, which others may write to: no library may run code from a pickle.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    # A step on a CPU frees its activations and takes the memory again. Where the system offers huge pages,
    # tensors of 2 MiB and more take those: clearing 512 small ones takes longer.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
