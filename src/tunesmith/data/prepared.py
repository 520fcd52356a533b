"""Samples that were prepared, with the report of their making: in memory, and as a folder keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.report import DatasetReport, as_values, from_values
from tunesmith.data.table import Table
from tunesmith.tokens.conversation import Message, Sample

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class FirstSample:
    """One of the first samples, for people to look at."""

    place: str
    sample: Sample
    messages: tuple[Message, ...] = ()


@dataclass(slots=True)
class Prepared:
    """Tables of training and validation samples, and the report of their making."""

    train: Table
    validation: Table | None
    reports: list[DatasetReport] = field(default_factory=list)
    first: list[FirstSample] = field(default_factory=list)

    def lengths(self, bins: int = 20) -> list[dict[str, int]]:
        """Histogram of the training samples' lengths in tokens."""
        return histogram(self.train.lengths, bins)

    def label_lengths(self, bins: int = 20) -> list[dict[str, int]]:
        """Histogram of how many labels the training samples have."""
        return histogram(self.train.labels, bins)

    def report(self) -> list[dict[str, Any]]:
        """The dataset reports as plain values."""
        return as_values(self.reports)


def histogram(values: npt.NDArray[np.int64], bins: int) -> list[dict[str, int]]:
    """Whole numbers in at most `bins` bins of about the same width, both bounds included."""
    if not len(values):
        return []
    edges = np.unique(np.linspace(int(values.min()), int(values.max()) + 1, bins + 1).astype(int))
    counts, edges = np.histogram(values, edges)
    return [
        {"low": int(low), "high": int(high) - 1, "count": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def save_report(folder: Path, reports: list[DatasetReport], first: Sequence[dict[str, Any]]) -> None:
    """Write what stands beside the tables, as the last thing: `first` has place, index and messages."""
    told = {"reports": as_values(reports), "first": list(first)}
    (folder / REPORT).write_text(json.dumps(told), "utf-8")


def load_prepared(folder: Path) -> Prepared:
    """What `prepare` left in a folder."""
    told = json.loads((folder / REPORT).read_text("utf-8"))
    train, validation = Table(folder / "train"), Table(folder / "validation")
    first = [
        FirstSample(each["place"], train.sample(each["index"]), tuple(Message(*m) for m in each["messages"]))
        for each in told["first"]
    ]
    return Prepared(train, validation if len(validation) else None, from_values(told["reports"]), first)
