"""How much of a model is trained: what the log and the report say before and after a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Trained:
    """Modules that have trained weights, these weights in numbers, and all weights, adapters included.

    `names` counts the modules by the last parts of their names, where they have adapters.
    """

    modules: int
    parameters: int
    total: int
    names: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Trained weights among all."""
        return self.parameters / self.total if self.total else 0.0

    def sentence(self) -> str:
        """For people, without a full stop."""
        named = ", ".join(f"{name} {number}" for name, number in self.names.items())
        modules = f"{self.modules:,} module{'' if self.modules == 1 else 's'}"
        return f"{self.parameters:,} of {self.total:,} parameters ({100 * self.share:.3g}%) in {modules}" + (
            f": {named}" if named else ""
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for result.json."""
        return {
            "modules": self.modules,
            "parameters": self.parameters,
            "totalParameters": self.total,
            "share": self.share,
            **({"moduleNames": self.names} if self.names else {}),
        }


def count_trained(model: Any) -> Trained:
    """Count what requires a gradient; weights that are sharded or in 4 bits as what they stand for."""
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
    """Numbers that a parameter stands for."""
    shape = getattr(getattr(weight, "quant_state", None), "shape", None)  # of bitsandbytes' packed weights
    if shape is not None:
        return int(shape.numel())
    return int(getattr(weight, "ds_numel", weight.numel()))  # of DeepSpeed's shares
