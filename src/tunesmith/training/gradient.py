"""The gradient norm, exact for tensors of any size, and clipping by it.

torch sums the squares of a float32 tensor in float32; on a CPU the norm of an embedding with 28 million
elements is too small by more than 1e-4. DeepSpeed sums them in float64, so the same run would have another
`grad_norm`, and other weights once it clips. Here rows are short enough for float32, and are summed in
float64.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tunesmith.training.device import read

_ROW = 4096


def gradient_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the Euclidean norm of all gradients as one vector, a float64 scalar on the first one's device.

    It is nan or inf if one of them contains such.
    """
    squares = [part for gradient in gradients for part in _squares(gradient.detach())]
    if not squares:
        return torch.zeros((), dtype=torch.float64)
    device = squares[0].device
    return torch.stack([each.to(device) for each in squares]).sum().sqrt()


def _squares(gradient: torch.Tensor) -> Iterable[torch.Tensor]:
    """Yield partial sums of squares of the gradient, float64 scalars on its device."""
    flat = gradient.reshape(-1).float()
    whole = len(flat) - len(flat) % _ROW
    for part in (flat[:whole].view(-1, _ROW), flat[whole:].view(1, -1)):
        if part.numel():
            yield torch.linalg.vector_norm(part, dim=1).double().square().sum()


def clip_gradient(parameters: Iterable[torch.nn.Parameter], most: float) -> float:
    """Clip the gradient's norm to at most `most`; 0 does not clip. Returns the norm before clipping."""
    with_gradient = [each for each in parameters if each.grad is not None]
    norm = gradient_norm(each.grad for each in with_gradient if each.grad is not None)
    if most > 0:
        torch.nn.utils.clip_grads_with_norm_(with_gradient, most, norm.float())
    (number,) = read(norm[None])
    return number
