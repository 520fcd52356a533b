"""What GPUs offer, by their vendors' data sheets. Pure.

Peaks are those of dense products of bfloat16 (float16 where there is no bfloat16) summed in float32, without
sparsity, of the SXM form where there are several. Memory is what the driver reports of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunesmith.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class GpuCard:
    """A GPU: bytes of its memory, floating-point operations and bytes of memory traffic per second."""

    name: str
    memory: int
    flops: float
    bandwidth: float


_SHEETS = (
    # name, MiB, TFLOP/s, GB/s
    ("B200", 183_359, 2250.0, 8000),
    ("H200", 143_771, 989.0, 4800),
    ("H100", 81_559, 989.0, 3350),
    ("H100-NVL", 95_830, 835.0, 3938),
    ("H100-PCIe", 81_559, 756.0, 2000),
    ("A100-80", 81_920, 312.0, 2039),
    ("A100-40", 40_960, 312.0, 1555),
    ("A40", 46_068, 149.7, 696),
    ("A10", 23_028, 125.0, 600),
    ("A10G", 23_028, 70.0, 600),
    ("L40S", 46_068, 362.0, 864),
    ("L4", 23_034, 121.0, 300),
    ("RTX-6000-Ada", 49_140, 364.2, 960),
    ("RTX-A6000", 49_140, 154.8, 768),
    ("RTX-5090", 32_607, 209.5, 1792),
    ("RTX-4090", 24_564, 165.2, 1008),
    ("RTX-3090", 24_576, 71.0, 936),
    ("V100-32", 32_768, 125.0, 900),
    ("T4", 15_360, 65.0, 320),
    ("MI300X", 196_592, 1307.4, 5300),
)
CARDS = tuple(GpuCard(name, mib * MIB, peak * 1e12, rate * 1e9) for name, mib, peak, rate in _SHEETS)
_SAME = {
    "h100sxm": "H100", "h10080gbhbm3": "H100", "h200sxm": "H200", "a100": "A100-80", "a6000": "RTX-A6000",
    "a100pcie80gb": "A100-80", "a100sxm480gb": "A100-80", "a10080gbpcie": "A100-80", "teslat4": "T4",
    "a100sxm440gb": "A100-40", "a100pcie40gb": "A100-40", "rtx6000adageneration": "RTX-6000-Ada",
    "v100": "V100-32", "teslav100sxm232gb": "V100-32", "4090": "RTX-4090", "geforcertx4090": "RTX-4090",
    "3090": "RTX-3090", "geforcertx3090": "RTX-3090", "5090": "RTX-5090", "geforcertx5090": "RTX-5090",
}  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia"))


def known_card(name: str) -> GpuCard | None:
    """Return the card of a name, as people, drivers or labels of nodes write it; None if it is not known."""
    wanted = _plain(name)
    wanted = _plain(_SAME.get(wanted, wanted))
    return next((card for card in CARDS if _plain(card.name) == wanted), None)


def find_card(name: str) -> GpuCard:
    """Return the card of a name. Raises UsageError that lists the known ones."""
    card = known_card(name)
    if card is None:
        names = ", ".join(card.name for card in CARDS)
        raise UsageError(f"--gpu {name}: this GPU is not known; choose one of {names}.")
    return card
