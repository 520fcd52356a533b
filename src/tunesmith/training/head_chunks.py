"""How many rows of logits the language-model head computes at once, and the memory that they take.

A CPU works best on what is near its caches. A GPU needs thousands of rows to be busy, which a large
vocabulary makes gigabytes. Pure: depends on numbers only.
"""

from __future__ import annotations

# Logits of one chunk on a CPU: 64 MB in float32.
CPU_LOGITS = 1 << 24
# On a GPU: the share of its memory that logits in float32 may take, and as many rows as keep it busy.
SHARE, GPU_ROWS = 64, 4096


def chunk_rows(rows: int, vocabulary: int, gpu_memory: int | None) -> int:
    """Return how many of some rows are computed at once; `gpu_memory` in bytes, None on a CPU."""
    if gpu_memory is None:
        return -(-rows // -(-rows * vocabulary // CPU_LOGITS))
    return max(1, min(GPU_ROWS, rows, gpu_memory // SHARE // (4 * vocabulary)))
