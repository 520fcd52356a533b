"""How the training step shares its work with the device: it queues copies, and waits in one place.

A GPU computes while Python goes on, until something reads a value. A step that reads one for each
micro-batch, or copies from ordinary memory, leaves the GPU idle each time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device, copied while Python and the device go on."""
    if device.type == "cpu":
        return tensor
    pinned = tensor.pin_memory() if torch.cuda.is_available() else tensor
    return pinned.to(device, non_blocking=True)


def read(values: torch.Tensor) -> list[float]:
    """Return numbers, shape (n,), from a device, once it has computed them: the step waits here."""
    numbers: list[float] = values.tolist()
    return numbers


class CopyStream:
    """Copies for the next step, made while the device computes this one; nothing special without a GPU.

    What was copied here must live until the device has computed with it: a step keeps its data until it
    has read its loss.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def open(self) -> AbstractContextManager[object]:
        """Return a context whose copies do not wait for the device's other work."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> torch.cuda.Event | None:
        """Return what `wait_for` needs to wait for the copies so far."""
        return None if self._stream is None else self._stream.record_event()


def wait_for(copied: torch.cuda.Event | None) -> None:
    """Make the device wait for copies before it computes what is queued from now on."""
    if copied is not None:
        torch.cuda.current_stream().wait_event(copied)
