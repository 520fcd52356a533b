"""Prepared samples and the report on them: in memory, and in a folder."""

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
    """One of the first samples of a kind, for people to look at.

    `dataset` is its report's position, `kind` is as counted in reports, `copies` how often it is in an epoch.
    """

    place: str
    sample: Sample
    messages: tuple[Message, ...] = ()
    dataset: int = 0
    kind: str = ""
    copies: int = 1


@dataclass(slots=True)
class Prepared:
    """Tables of training and validation samples, and the report on them."""

    train: Table
    validation: Table | None
    reports: list[DatasetReport] = field(default_factory=list)
    first: list[FirstSample] = field(default_factory=list)

    def lengths(self, bins: int = 20) -> list[dict[str, int]]:
        """Return a histogram of the training samples' lengths in tokens."""
        return histogram(self.train.lengths, bins)

    def label_lengths(self, bins: int = 20) -> list[dict[str, int]]:
        """Return a histogram of how many labels the training samples have."""
        return histogram(self.train.labels, bins)

    def report(self) -> list[dict[str, Any]]:
        """Return the dataset reports as plain values."""
        return as_values(self.reports)


def histogram(values: npt.NDArray[np.int64], bins: int) -> list[dict[str, int]]:
    """Return whole numbers in at most `bins` bins of about the same width, both bounds included."""
    if not len(values):
        return []
    edges = np.unique(np.linspace(int(values.min()), int(values.max()) + 1, bins + 1).astype(int))
    counts, edges = np.histogram(values, edges)
    return [
        {"low": int(low), "high": int(high) - 1, "count": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def save_report(folder: Path, reports: list[DatasetReport], first: Sequence[dict[str, Any]]) -> None:
    """Write the files beside the tables, last of all.

    `first` has dataset, kind, place, index and messages of the first samples of each dataset and kind.
    """
    told = {"reports": as_values(reports), "first": list(first)}
    (folder / REPORT).write_text(json.dumps(told), "utf-8")


def load_prepared(folder: Path, first: int | None = None) -> Prepared:
    """Read what `prepare` wrote to a folder; `first` samples of each dataset and kind, all if None."""
    told = json.loads((folder / REPORT).read_text("utf-8"))
    train, validation = Table(folder / "train"), Table(folder / "validation")
    chosen = [_first_sample(train, each) for each in _chosen(told["first"], train, first)]
    return Prepared(train, validation if len(validation) else None, from_values(told["reports"]), chosen)


def _chosen(kept: list[dict[str, Any]], train: Table, first: int | None) -> list[dict[str, Any]]:
    """Return the first training samples of each dataset and kind, interleaved."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for each in kept:
        if train.copies[each["index"]] > 0:  # a sample that is also in validation was removed in the end
            groups.setdefault((each["dataset"], each["kind"]), []).append(each)
    return [each for group in groups.values() for each in group[:first]]


def _first_sample(train: Table, each: dict[str, Any]) -> FirstSample:
    messages = tuple(Message(*message) for message in each["messages"])
    copies = int(train.copies[each["index"]])
    sample = train.sample(each["index"])
    return FirstSample(each["place"], sample, messages, each["dataset"], each["kind"], copies)
