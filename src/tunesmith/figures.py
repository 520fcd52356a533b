"""Money, sizes and times as people read them: small amounts keep their digits, none is shown as nothing."""

from __future__ import annotations

import math

_MOST_DIGITS = 12


def usd_number(amount: float) -> str:
    """Return an amount such as `0.0123`: two decimals from one dollar, else enough to be significant."""
    size = abs(amount)
    if not 0 < size < 1:  # also what is no number
        return f"{amount:,.2f}"
    if size >= 0.001:
        return f"{amount:.4f}"
    digits = 1 - math.floor(math.log10(size))
    return f"{amount:.{min(digits, _MOST_DIGITS)}f}"


def usd(amount: float) -> str:
    """Return an amount such as `0.0123 USD`."""
    return f"{usd_number(amount)} USD"


def binary_size(size: float) -> str:
    """Return bytes of memory or of a volume: `1.5 GiB`."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1024:,.1f} KiB" if size else "0"


def decimal_size(size: float) -> str:
    """Return bytes of files, or of memory as cards are sold: `1.50 GB`."""
    if size >= 1e8 or not size:
        return f"{size / 1e9:,.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def about_minutes(seconds: float) -> str:
    """Return an estimated time as the beginning of a sentence: `About 2.5 minutes`, `Under a minute`."""
    return f"About {seconds / 60:,.1f} minutes" if seconds >= 60 else "Under a minute"
