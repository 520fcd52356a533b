"""The page of `tunesmith preview --html`: what a job would learn from, in plots.

Does not depend on where the values come from and where the page goes. See `finetune` for how pages are safe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.report import svg
from tunesmith.report.finetune import (
    DATASET_COLUMNS,
    chart,
    dataset_row,
    environment,
    length_chart,
    without_control_characters,
)
from tunesmith.report.values import Values

SUMMED = ("seen_samples", "seen_tokens", "validation_samples", "tokens", "label_tokens")
MOST_BARS = 12


def render_data_report(data: Mapping[str, Any]) -> str:
    """Return the HTML of one page. The keys of `data`:

    title, takes [str] (what training would take; may be absent), datasets [as in
    `data.report.DatasetReport`], lengths and label_lengths [{low, high, count}], samples [as returned by
    `samples.sample_values`].
    """
    datasets = data["datasets"]
    charts = [
        length_chart(data["lengths"]),
        _bars("Samples by number of labels", "labels", data["label_lengths"]),
        users_chart(datasets) if len(users(datasets)) > MOST_BARS else None,
    ]
    values = {
        "title": data["title"],
        "summary": summary(datasets),
        "takes": data.get("takes") or [],
        "datasets": [dataset_row(row) for row in datasets],
        "dataset_columns": DATASET_COLUMNS,
        "shares": [(r["name"], r["share"], f"{r['share']:.1%}") for r in datasets if r["seen_samples"]],
        "charts": [each for each in charts if each],
        "users": users_bars(datasets) if len(users(datasets)) <= MOST_BARS else [],
        "left_out": left_out(datasets),
        "bad": [f"{row['name']}: {bad}" for row in datasets for bad in row["bad_records"]],
        "samples": data["samples"],
    }
    page = environment().get_template("data.html.j2").render(sections=sections(values), **values)
    return without_control_characters(page)


def summary(datasets: Sequence[Values]) -> list[tuple[str, Any]]:
    """Return the few most important numbers."""
    whole = {key: sum(row[key] for row in datasets) for key in SUMMED}
    labels = whole["label_tokens"] / whole["tokens"] if whole["tokens"] else 0.0
    facts = [
        ("Samples per epoch", whole["seen_samples"]),
        ("Tokens per epoch", whole["seen_tokens"]),
        ("Labels", f"{labels:.0%} of all tokens"),
        ("Held out", whole["validation_samples"]),
    ]
    known = sum(row["users"] for row in datasets)
    return [*facts, ("Users", known)] if known else facts


def sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (id, text) of the sections that the page has."""
    known = [
        ("takes", "What it takes", values["takes"]),
        ("datasets", "Datasets", True),
        ("lengths", "Lengths", values["charts"]),
        ("left-out", "Left out", values["left_out"] or values["bad"]),
        ("samples", "Samples", values["samples"]),
    ]
    return [(name, text) for name, text, present in known if present]


def users_chart(datasets: Sequence[Values]) -> dict[str, Any] | None:
    """Return a chart of users by their number of samples; None if there are no users."""
    bars = [{"low": n, "high": n, "count": count} for n, count in sorted(users(datasets).items())]
    return _bars("Users by number of samples", "samples", bars, "users")


def users_bars(datasets: Sequence[Values]) -> list[tuple[str, float, str]]:
    """Return the same as bars, for few numbers of samples: name, length on the page, text."""
    found = users(datasets)
    most = max(found.values(), default=1)
    return [(f"{n:,} samples", count / most, f"{count:,} users") for n, count in sorted(found.items())]


def users(datasets: Sequence[Values]) -> Counter[int]:
    """Return the number of users by their number of samples."""
    found: Counter[int] = Counter()
    for row in datasets:
        found.update({int(number): count for number, count in row["samples_per_user"].items()})
    return found


def left_out(datasets: Sequence[Values]) -> list[tuple[str, float, str]]:
    """Return the reasons with bar length and count, the most frequent first."""
    reasons: Counter[str] = Counter()
    for row in datasets:
        reasons.update(row["skipped"])
    most = max(reasons.values(), default=1)
    return [(reason, number / most, f"{number:,}") for reason, number in reasons.most_common()]


def _bars(
    title: str, x_label: str, rows: Sequence[Values], y_label: str = "samples"
) -> dict[str, Any] | None:
    bars = [(row["low"], row["high"] + 1, row["count"]) for row in rows]
    drawn = svg.bar_chart(bars, x_label=x_label, y_label=y_label, title=title, css="chart wide")
    return chart(title, drawn, [], "")
