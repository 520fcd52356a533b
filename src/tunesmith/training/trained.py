"""How much of a model is trained, for the log and the report before and after a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Trained:
    """The number of modules with trained weights, of these weights, and of all weights, adapters included.

    `names` counts the modules with adapters by the last parts of their names.
    """

    modules: int
    parameters: int
    total: int
    names: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of trained weights among all."""
        return self.parameters / self.total if self.total else 0.0

    def sentence(self) -> str:
        """Return a sentence for people, without a full stop."""
        named = ", ".join(f"{name} {number}" for name, number in self.names.items())
        modules = f"{self.modules:,} module{'' if self.modules == 1 else 's'}"
        return f"{self.parameters:,} of {self.total:,} parameters ({100 * self.share:.3g}%) in {modules}" + (
            f": {named}" if named else ""
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for result.json."""
        return {
            "modules": self.modules,
            "parameters": self.parameters,
            "totalParameters": self.total,
            "share": self.share,
            **({"moduleNames": self.names} if self.names else {}),
        }


def count_trained(model: Any) -> Trained:
    """Count what requires a gradient; sharded and 4-bit weights count with their full size."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {
        name: m for name, m in model.named_modules() if isinstance(m, BaseTunerLayer) and _trains(m, True)
    }
    inner = tuple(f"{name}." for name in layers)
    others = [
        name for name, module in model.named_modules()
        if name not in layers and not name.startswith(inner) and _trains(module, False)
    ]  # fmt: skip
    return Trained(
        modules=len(layers) + len(others),
        parameters=sum(_size(weight) for weight in model.parameters() if weight.requires_grad),
        total=sum(map(_size, model.parameters())),
        names=dict(Counter(name.rpartition(".")[2] for name in layers)),
    )


def _trains(module: Any, recurse: bool) -> bool:
    return any(weight.requires_grad for weight in module.parameters(recurse=recurse))


def _size(weight: Any) -> int:
    """Return the number of weights that a parameter represents."""
    shape = getattr(getattr(weight, "quant_state", None), "shape", None)  # of bitsandbytes' packed weights
    if shape is not None:
        return int(shape.numel())
    return int(getattr(weight, "ds_numel", weight.numel()))  # of DeepSpeed's shares
