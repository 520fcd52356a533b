"""What `tunesmith estimate` is asked for, and values that its parts share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.api.common import JobSpec
from tunesmith.engines.cards import CARDS, GpuCard, known_card

Values = dict[str, Any]
CONTEXT = 0.8 * (1 << 30)
"""Bytes of a GPU that CUDA and its libraries take, assumed."""
UNUSED = 0.05
"""The share of what is allocated that lies between allocations, assumed."""
_PRODUCT_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "amd.com/gpu.product-name")


@dataclass(frozen=True, slots=True)
class EstimateOptions:
    """The command's options. `card` None: the nodes' label, else every known card.

    `tokens` are those of the training set or the prompts, `sample_tokens` those of one sample: instead of
    reading the data. `efficiency` is the share of the card's peak, None for the assumed one.
    """

    card: GpuCard | None = None
    tokens: int | None = None
    sample_tokens: int | None = None
    efficiency: float | None = None


def chosen_card(options: EstimateOptions, spec: JobSpec) -> GpuCard | None:
    """Return the card of the option, or that of the labels in `placement.nodeSelector`; None without both."""
    labels: Mapping[str, str] = spec.placement.node_selector
    named = next((labels[name] for name in _PRODUCT_LABELS if name in labels), None)
    return options.card or (known_card(named) if named else None)


def smallest_first() -> list[GpuCard]:
    """Return all cards, those with the least memory first, slow ones first among equals."""
    return sorted(CARDS, key=lambda card: (card.memory, card.flops))


def quantity_bytes(quantity: object) -> int | None:
    """Return the bytes of a Kubernetes quantity, such as 200Gi; None if there is none."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)([kKMGTPE]?)(i?)m?", str(quantity))
    if quantity is None or found is None:
        return None
    number, letter, binary = found.groups()
    unit = (1024 if binary else 1000) ** " KMGTPE".index(letter.upper() or " ")
    return round(float(number) * int(unit))


def with_reserve(allocated: float) -> float:
    """Return what a GPU needs for so much allocated memory."""
    return allocated * (1 + UNUSED) + CONTEXT
