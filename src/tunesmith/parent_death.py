"""Have the kernel signal this process when its parent dies, so that no orphan keeps running.

The signal comes when the *thread* ends that started the process; whoever starts one keeps that thread alive.
Linux only; elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Request the signal; exit at once if the process `parent` has already died."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, with_signal)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
