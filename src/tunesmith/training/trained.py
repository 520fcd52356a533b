"""How much of a model is trained, for the log and the report before and after a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tunesmith.training.adapters import base_weight


@dataclass(frozen=True, slots=True)
class Trained:
    """The number of modules with trained weights, of these weights, and of all weights, adapters included.

    `names` counts the modules with adapters by the last parts of their names. `covered` are the weights of
    the model, of `own` in all, to which trained adapters add something.
    """

    modules: int
    parameters: int
    total: int
    names: dict[str, int] = field(default_factory=dict)
    covered: int = 0
    own: int = 0

    @property
    def share(self) -> float:
        """The share of trained weights among all."""
        return self.parameters / self.total if self.total else 0.0

    @property
    def covered_share(self) -> float:
        """The share of the model's own weights that adapters change."""
        return self.covered / self.own if self.own else 0.0

    def sentence(self) -> str:
        """Return a sentence for people, without a full stop."""
        named = ", ".join(f"{name} {number}" for name, number in self.names.items())
        modules = f"{self.modules:,} module{'' if self.modules == 1 else 's'}"
        trained = f"{self.parameters:,} of {self.total:,} parameters ({100 * self.share:.3g}%) in {modules}"
        if not named:
            return trained
        return (
            f"{trained}: {named}; the adapter covers {100 * self.covered_share:.3g}% of the model's weights"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for result.json."""
        return {
            "modules": self.modules,
            "parameters": self.parameters,
            "totalParameters": self.total,
            "share": self.share,
            **({"moduleNames": self.names, "coveredShare": self.covered_share} if self.names else {}),
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
    adapters = sum(_size(weight) for name, weight in model.named_parameters() if ".lora_" in name)
    total = sum(map(_size, model.parameters()))
    return Trained(
        modules=len(layers) + len(others),
        parameters=sum(_size(weight) for weight in model.parameters() if weight.requires_grad),
        total=total,
        names=dict(Counter(_short_name(name, layer) for name, layer in layers.items())),
        covered=sum(_size(base_weight(layer)) for layer in layers.values()),
        own=total - adapters,
    )


def _short_name(name: str, layer: Any) -> str:
    """Return the last part of a module's name; of the adapter of a parameter, which wraps others, its own."""
    return str(getattr(layer, "parameter_name", "") or name.rpartition(".")[2])


def _trains(module: Any, recurse: bool) -> bool:
    return any(weight.requires_grad for weight in module.parameters(recurse=recurse))


def _size(weight: Any) -> int:
    """Return the number of weights that a parameter represents."""
    shape = getattr(getattr(weight, "quant_state", None), "shape", None)  # of bitsandbytes' packed weights
    if shape is not None:
        return int(shape.numel())
    return int(getattr(weight, "ds_numel", weight.numel()))  # of DeepSpeed's shares
