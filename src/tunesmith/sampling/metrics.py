"""Shares with a confidence interval, and how often replies go in the direction of a changed law.

Sums of whole numbers only, so that the order in which prompts come never changes a digit. Does not depend on
rows and files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.formats.judgement import direction, parse_judgement
from tunesmith.data.formats.legal import LABELS

# The 97.5 % quantile of the standard normal distribution: 95 % between both ends.
Z = 1.959963984540054
Interval = tuple[float, float]


@dataclass(slots=True)
class Share:
    """Hits among trials that come in clusters: the replies to one prompt are alike.

    The interval is Wilson's (1927, "Probable inference, the law of succession, and statistical inference")
    with Kish's effective number of trials (1965, "Survey Sampling"): trials divided by the design effect,
    which is the variance of the ratio estimator over clusters (Cochran 1977, "Sampling Techniques", 2.11)
    by that of as many independent trials, and at least 1. With one trial a cluster this is Wilson's interval
    itself. Where all trials are hits, or none, the design effect cannot be seen; then a cluster counts as one
    trial.
    """

    clusters: int = 0
    trials: int = 0
    hits: int = 0
    _hits_squared: int = 0
    _products: int = 0
    _trials_squared: int = 0

    def add(self, hits: int, trials: int) -> None:
        """Add one cluster, with 0 ≤ hits ≤ trials; one without trials does not count."""
        if trials:
            self.clusters += 1
            self.trials += trials
            self.hits += hits
            self._hits_squared += hits * hits
            self._products += hits * trials
            self._trials_squared += trials * trials

    @property
    def value(self) -> float | None:
        """Hits divided by trials, None without trials."""
        return self.hits / self.trials if self.trials else None

    def interval(self) -> Interval | None:
        """Return the 95 % interval, None without trials."""
        return wilson(self.hits / self.trials, self._effective_trials()) if self.trials else None

    def as_dict(self, name: str) -> dict[str, Any]:
        """Return `{name: value, name_interval: [low, high]}`, both None without trials; of 6 digits."""
        interval = self.interval()
        return {
            name: _rounded(self.value),
            f"{name}_interval": [_rounded(end) for end in interval] if interval else None,
        }

    def _effective_trials(self) -> float:
        """Return a number between that of clusters, or nearly, and that of trials."""
        if self.clusters < 2 or self.hits in (0, self.trials):
            return self.clusters
        # Σ(h - r t)² times trials², in whole numbers; r is hits / trials.
        squares = (
            self._hits_squared * self.trials**2
            - 2 * self.hits * self.trials * self._products
            + self.hits**2 * self._trials_squared
        )
        clustered = squares / self.trials**4 * self.clusters / (self.clusters - 1)
        rate = self.hits / self.trials
        independent = rate * (1 - rate) / (self.trials - 1)
        return self.trials / max(1.0, clustered / independent)


def wilson(rate: float, trials: float) -> Interval:
    """Return Wilson's 95 % interval of a rate over independent trials, whose number may be a fraction."""
    square = Z * Z / trials
    middle = (rate + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return max(0.0, middle - half) if rate > 0 else 0.0, min(1.0, middle + half) if rate < 1 else 1.0


@dataclass(slots=True)
class _Direction:
    there: Share = field(default_factory=Share)
    right: Share = field(default_factory=Share)


class Directions:
    """Per label of legal prompts, the share of replies that go in its direction, and of accepted ones."""

    def __init__(self) -> None:
        self._labels: dict[str, _Direction] = {}

    def add(self, label: str, replies: Iterable[str], accepted: int, judged: int) -> None:
        """Add one prompt with its label, its whole replies, how many were accepted and how many counted.

        `judged` may be more than the replies: one that was truncated or not sampled has no direction.
        """
        there = sum(direction(label, parse_judgement(reply)) for reply in replies)
        found = self._labels.setdefault(label, _Direction())
        found.there.add(there, judged)
        found.right.add(accepted, judged)

    def values(self) -> list[dict[str, Any]]:
        """Return, per label in the order of `legal.LABELS`, numbers of prompts and replies, both shares."""
        return [
            {
                "label": label,
                "prompts": found.there.clusters,
                "replies": found.there.trials,
                "in_direction": found.there.hits,
                **found.there.as_dict("direction_rate"),
                "accepted": found.right.hits,
                **found.right.as_dict("accuracy"),
            }
            for label, found in sorted(self._labels.items(), key=lambda item: LABELS.index(item[0]))
        ]


@dataclass(slots=True)
class Difference:
    """Mean of paired differences, each from -1 to 1: a prompt's share of accepted replies, by two models.

    The interval is Agresti's and Min's (2005, "Simple improved confidence intervals for comparing matched
    proportions"): the normal one of the mean, with two pairs added of which half a pair says 1 and half a
    pair -1, so that it has a width if no pair, or every pair, differs.
    """

    pairs: int = 0
    _by_value: Counter[float] = field(default_factory=Counter)

    def add(self, difference: float) -> None:
        """Add one pair."""
        self.pairs += 1
        self._by_value[difference] += 1

    def as_dict(self, name: str) -> dict[str, Any]:
        """Return `{name: mean, name_interval: [low, high]}`, both None without pairs; rounded to 6 digits."""
        if not self.pairs:
            return {name: None, f"{name}_interval": None}
        total = math.fsum(value * count for value, count in self._by_value.items())
        squares = math.fsum(value * value * count for value, count in self._by_value.items())
        more = self.pairs + 2
        mean = total / more
        half = Z * math.sqrt(max(0.0, (squares + 1) / more - mean * mean) / more)
        ends = max(-1.0, mean - half), min(1.0, mean + half)
        return {name: _rounded(total / self.pairs), f"{name}_interval": [_rounded(end) for end in ends]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
