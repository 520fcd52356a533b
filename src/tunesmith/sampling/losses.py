"""Mean losses with intervals, and paired differences of them: each record is compared with itself.

A mean is Σ v ℓ / Σ v, a ratio of two sums over records, as an accuracy is one over prompts (`metrics.Share`):
its variance is that of the ratio estimator over clusters (Cochran 1977, "Sampling Techniques", 2.11). The
interval is Student's, with one degree of freedom less than records: there may be few. A loss has no bounds,
so neither Wilson's nor Agresti's and Min's correction applies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunesmith.sampling.metrics import Z

RecordSums = Mapping[str, tuple[float, float]]
"""Σ v and Σ v ℓ by the record's key."""
_T = {1: 12.706205, 2: 4.302653}  # 97.5 % quantiles of Student's t


def mean_loss(records: RecordSums) -> dict[str, Any]:
    """Return `{loss, loss_interval: [low, high]}`, of 6 digits; None each where it is not known."""
    loss = _mean(records)
    spread = list(_residuals(records, loss).values())
    return {"loss": _rounded(loss), "loss_interval": _interval(loss, spread)}


def loss_difference(first: RecordSums, own: RecordSums) -> dict[str, Any] | None:
    """Return how `own` differs from `first`, over the records that both have; None without any.

    - `records`; `lower`, `higher`: those whose own mean is lower, or higher, than the first's
    - `difference`, `difference_interval`: own mean less the first's, over these records, of 6 digits
    - `same_labels`: whether every record has the same Σ v in both; else it is not the same tokens that are
      compared
    """
    both = sorted(key for key in first.keys() & own.keys() if first[key][0] and own[key][0])
    if not both:
        return None
    first, own = ({key: each[key] for key in both} for each in (first, own))
    before, after = _mean(first), _mean(own)
    spread = [
        mine - theirs
        for mine, theirs in zip(
            _residuals(own, after).values(), _residuals(first, before).values(), strict=True
        )
    ]
    changes = [own[key][1] / own[key][0] - first[key][1] / first[key][0] for key in both]
    return {
        "records": len(both),
        "lower": sum(change < 0 for change in changes),
        "higher": sum(change > 0 for change in changes),
        "difference": _rounded(after - before),
        "difference_interval": _interval(after - before, spread),
        "same_labels": all(first[key][0] == own[key][0] for key in both),
    }


def _mean(records: RecordSums) -> float:
    weights, losses = zip(*records.values(), strict=True)
    whole = math.fsum(weights)
    return math.fsum(losses) / whole if whole else math.nan


def _residuals(records: RecordSums, mean: float) -> dict[str, float]:
    """Return each record's part of the error of the mean, to first order."""
    whole = math.fsum(weight for weight, _ in records.values())
    return {key: (loss - mean * weight) / whole for key, (weight, loss) in records.items() if whole}


def _interval(middle: float, residuals: list[float]) -> list[float] | None:
    """Return the 95 % interval; None with fewer than two records, or if a loss is not finite."""
    count = len(residuals)
    if count < 2 or not all(map(math.isfinite, (middle, *residuals))):
        return None
    error = math.sqrt(count / (count - 1) * math.fsum(each * each for each in residuals))
    half = student(count - 1) * error
    return [round(middle - half, 6), round(middle + half, 6)]


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, exact to 0.5 % (Abramowitz and Stegun 1964, 26.7.5)."""
    z, n = Z, freedom
    return _T.get(freedom) or (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
