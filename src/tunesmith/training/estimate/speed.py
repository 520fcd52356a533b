"""How long a training step takes on a card: computing at a share of the card's peak, or reading the weights.

Communication between devices and evaluations are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.engines.cards import GpuCard
from tunesmith.training.estimate.memory import standing, weight_bytes
from tunesmith.training.estimate.setup import MemorySetup
from tunesmith.training.estimate.work import StepWork, step_flops

EFFICIENCY = {"full": 0.40, "lora": 0.35, "qlora": 0.25}
"""The share of a card's peak that is assumed; QLoRA converts its weights for each product."""
OF_EXPERTS = 0.6
"""The factor of that for mixtures of experts, whose products are small."""
OF_BANDWIDTH = 0.8
"""The share of a card's bandwidth that is assumed."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one step; `efficiency` is the share of the peak that was assumed or given."""

    seconds: float
    efficiency: float


def assumed_efficiency(setup: MemorySetup) -> float:
    """Return the share of a card's peak that training is assumed to reach."""
    method = "full" if setup.full else "qlora" if setup.four_bits else "lora"
    return EFFICIENCY[method] * (OF_EXPERTS if setup.shape.experts else 1)


def step_time(setup: MemorySetup, work: StepWork, card: GpuCard, efficiency: float | None = None) -> StepTime:
    """Return how long the slowest device takes for a step; `efficiency` None: the assumed one."""
    share = efficiency or assumed_efficiency(setup)
    bandwidth = card.bandwidth * OF_BANDWIDTH
    computing = step_flops(setup, work) * work.balance / (card.flops * share)
    passes = 3 if setup.full or setup.checkpointing else 2
    reading = work.rounds * passes * weight_bytes(setup) / bandwidth
    still = standing(setup)
    updating = (2 * still.optimizer + 3 * still.gradients) / bandwidth
    return StepTime(max(computing, reading) + updating, share)
