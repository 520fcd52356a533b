"""The part of a FineTuneJob's report on its evaluations: the base model beside the tuned one.

Takes plain values and gives those that `evaluation.html.j2` shows. Refuses to know how replies were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.report.shares import between, percent

Row = Mapping[str, Any]

# Units of the view box; the share 0 to 1 lies between both margins.
WIDTH, HEIGHT, MARGIN, LINE = 640, 44, 24, 8
TICKS = range(0, 101, 25)
SIDES = (("base", "marks"), ("tuned", "line"))
"""Which model, and how its values are drawn."""


def evaluation_values(evaluations: Sequence[Row]) -> dict[str, Any]:
    """What the template's `section` shows. The keys of an evaluation:

    `name`, `base` and `tuned` (as `sampling.statistics.Statistics.values` gives them; `base` may be None) and
    `comparison` (as `sampling.comparison.compare` gives it; may be None).
    """
    return {"each": [_evaluation(row) for row in evaluations], "axis": axis()}


def _evaluation(row: Row) -> dict[str, Any]:
    sides = [(name, draw, row[name]) for name, draw in SIDES if row.get(name)]
    return {
        "name": row["name"],
        "chart": interval_chart(sides),
        "rows": [side_row(name, found) for name, _, found in sides],
        "has_base": bool(row.get("base")),
        "reasons": reason_rows(row.get("base"), row["tuned"]),
        "directions": direction_rows(row.get("base"), row["tuned"]),
        "difference": difference(row.get("comparison")),
        "changed": (row.get("comparison") or {}).get("changed") or [],
    }


def side_row(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """One model's line of the table."""
    return {
        "model": name,
        "prompts": found["total_prompts"],
        "replies": found["generations"],
        "accepted": found["accepted"],
        "accuracy": percent(found["accuracy"]),
        "interval": between(found["accuracy_interval"]),
        "truncated": found["truncated"],
        "tokens": found["tokens"]["drawn"] / found["generations"] if found["generations"] else None,
    }


def difference(comparison: Mapping[str, Any] | None) -> str:
    """A sentence on what changed, "" where nothing was compared."""
    if not comparison or comparison["difference"] is None:
        return ""
    change, (low, high) = comparison["difference"], comparison["difference_interval"]
    return (
        f"Accuracy changed by {100 * change:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}); "
        f"{comparison['gained']:,} of {comparison['prompts']:,} prompts went better, "
        f"{comparison['lost']:,} worse."
    )


def reason_rows(base: Mapping[str, Any] | None, tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Replies that were not accepted by reason, before and after, in the order of frequency before."""
    before, after = (base or {}).get("reasons") or {}, tuned["reasons"]
    names = sorted(
        before.keys() | after.keys(), key=lambda name: (-before.get(name, 0), -after.get(name, 0), name)
    )
    return [{"reason": name, "base": before.get(name, 0), "tuned": after.get(name, 0)} for name in names]


def direction_rows(base: Mapping[str, Any] | None, tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per label both shares of both models, as text."""
    before = {row["label"]: row for row in (base or {}).get("directions") or []}
    return [
        {
            "label": row["label"],
            "replies": row["replies"],
            **{
                f"{side}_{name}": percent(found.get(name))
                for side, found in (("base", before.get(row["label"], {})), ("tuned", row))
                for name in ("direction_rate", "accuracy")
            },
        }
        for row in tuned["directions"]
    ]


def interval_chart(sides: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Any:
    """An <svg> with a line for each model: its 95 % interval, and a mark at its accuracy."""
    from markupsafe import Markup

    opening = f'<svg class="chart wide" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    parts = [opening + ' aria-label="Accuracy with its 95 % interval">']
    for tick in TICKS:
        x = _x(tick / 100)
        parts.append(f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="0" y2="{HEIGHT}"/>')
    step = HEIGHT / (len(sides) + 1)
    for number, (side, draw, found) in enumerate(sides, 1):
        if found["accuracy"] is not None:
            parts.append(_interval(side, draw, found, number * step))
    return Markup("".join(parts) + "</svg>")


def axis() -> Any:
    """An <svg> with what the lines of the grid stand for, as wide as those of `interval_chart`."""
    from markupsafe import Markup

    parts = [f'<svg class="chart wide" viewBox="0 0 {WIDTH} 18" aria-hidden="true">']
    parts += [f'<text class="middle" x="{_x(tick / 100):g}" y="13">{tick} %</text>' for tick in TICKS]
    return Markup("".join(parts) + "</svg>")


def _interval(side: str, draw: str, found: Mapping[str, Any], y: float) -> str:
    low, high = (_x(end) for end in found["accuracy_interval"])
    tip = f"{side}: {percent(found['accuracy'])}, 95 % interval {between(found['accuracy_interval'])}"
    return (
        f'<g><title>{tip}</title><path class="{draw}" d="M{low:g} {y:g}H{high:g}'
        f'M{low:g} {y - LINE / 2:g}v{LINE}M{high:g} {y - LINE / 2:g}v{LINE}"/>'
        f'<circle class="{draw}" cx="{_x(found["accuracy"]):g}" cy="{y:g}" r="4"/></g>'
    )


def _x(share: float) -> float:
    return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)
