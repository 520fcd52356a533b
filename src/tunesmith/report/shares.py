"""Shares and intervals as text, for pages that show them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float | None) -> str:
    """Return a share such as `61.2 %`, a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def between(interval: Sequence[float] | None) -> str:
    """Return an interval such as `57.1 to 65.2 %`, a dash for None."""
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def of_all(count: int, total: int) -> str:
    """Return a count with its share, such as `12 (3.4 %)`; without the share if the total is 0."""
    return f"{count:,} ({percent(count / total)})" if total else f"{count:,}"
