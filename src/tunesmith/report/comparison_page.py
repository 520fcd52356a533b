"""The page of a comparison: what `comparison.compare_outputs` returns, as one self-contained HTML page.

Does not depend on where the values come from and where the page goes. See `finetune` for how pages are safe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.figures import decimal_size, usd
from tunesmith.report import svg
from tunesmith.report.evaluation import COLOURS, RIGHT, breakable, colour, difference, interval_line
from tunesmith.report.finetune import chart, environment, shown, without_control_characters
from tunesmith.report.shares import percent
from tunesmith.report.values import Values

GENERATOR = "<!-- Made by tunesmith compare. -->"
_LONGEST_VALUE = 200
_TICKS = [0, 25, 50, 75, 100]
_BEST = frozenset({"validation loss after", "lowest validation loss"})


def render_comparison(values: Mapping[str, Any]) -> str:
    """Return the HTML of one page of what `compare_outputs` returned."""
    outputs = [
        {**each, "colour": colour(number), "name": breakable(each["name"]), "uri": breakable(each["uri"])}
        for number, each in enumerate(values["outputs"])
    ]
    shown_values = {
        "title": f"{len(outputs)} {values['kind']}s compared",
        "introduction": f"Differences are to the first output, {values['outputs'][0]['name']}.",
        "outputs": outputs,
        "settings": [_row(row["field"], map(value_text, row["values"])) for row in values["settings"]],
        "data": [_row(row["name"], map(shown, row["values"])) for row in values["data"]],
        "equal": _equal(values),
        "charts": _charts(values),
        "measures": [_measure(row) for row in values["measures"]],
        "validation": _validation(values["validation"], values["outputs"][0]["name"]),
        "evaluations": [_evaluation(each, values["outputs"]) for each in values["evaluations"]],
        "previews": [_preview(each, values["outputs"]) for each in values["previews"]],
        "ticks": _TICKS,
    }
    template = environment().get_template("comparison.html.j2")
    page = template.render(sections=_sections(shown_values), **shown_values)
    return without_control_characters(page)


def _sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = [
        ("outputs", "Outputs", True),
        ("differences", "What differs", True),
        ("curves", "Curves", values["charts"]),
        ("results", "Results and cost", values["measures"]),
        ("validation", "Validation losses", values["validation"]),
        ("evaluations", "Evaluations", values["evaluations"]),
        ("previews", "Previews", values["previews"]),
    ]
    return [(name, text) for name, text, present in known if present]


def short_fields(fields: Sequence[str]) -> list[str]:
    """Return the last part of each field, or as many parts as tell it from the others."""
    short = []
    for field in fields:
        parts = field.split(".")
        own = next(
            ".".join(parts[-count:])
            for count in range(1, len(parts) + 1)
            if sum(other.endswith(".".join(parts[-count:])) for other in fields) == 1
            or count == len(parts)
        )  # fmt: skip
        short.append(own)
    return short


def value_text(value: Any) -> str:
    """Return a setting's value as a manifest has it; a dash for one that is absent."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def measure_text(value: Any, unit: str) -> str:
    """Return a result with its unit."""
    if value is None:
        return "–"
    match unit:
        case "loss":
            return f"{value:.4f}"
        case "seconds":
            return duration_text(value)
        case "bytes":
            return decimal_size(value)
        case "USD":
            return usd(value)
    return shown(value)


def duration_text(seconds: float) -> str:
    """Return seconds in people's units."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _row(name: str, texts: Any) -> dict[str, Any]:
    cells = [{"text": breakable(text), "more": "", "best": False} for text in texts]
    return {"name": breakable(name.replace(".", ".\u200b")), "cells": cells}


def _measure(row: Values) -> dict[str, Any]:
    """Return a row of results; losses with their difference to the first one, the lowest marked."""
    name, unit, values = row["name"], row["unit"], row["values"]
    made = _row(name, [measure_text(value, unit) for value in values])
    known = [value for value in values if value is not None]
    for number, (cell, value) in enumerate(zip(made["cells"], values, strict=True)):
        if unit != "loss" or value is None:
            continue
        cell["best"] = name in _BEST and len(known) > 1 and value == min(known)
        if number and values[0] not in (None, value) and math.isfinite(value - values[0]):
            cell["more"] = f"({value - values[0]:+.4f})"
    return made


def interval_text(interval: Sequence[float] | None, sign: str = "") -> str:
    """Return both ends of an interval of losses, "" for none; `sign` is "+" for a difference's."""
    return "" if interval is None else f"{interval[0]:{sign}.4f} to {interval[1]:{sign}.4f}"


def _validation(found: Values | None, first: str) -> dict[str, Any] | None:
    """Return the table of the final validation losses; a difference is bold where 0 is outside."""
    if found is None:
        return None
    losses, differences = found["losses"], found["differences"]
    means = _row("Validation loss", [measure_text(each and each["loss"], "loss") for each in losses])
    for cell, each in zip(means["cells"], losses, strict=True):
        cell["more"] = interval_text(each and each["loss_interval"])
    changes = _row(f"Difference to {first}", [difference_text(each) for each in differences])
    for cell, each in zip(changes["cells"], differences, strict=True):
        cell["more"] = interval_text(each and each["difference_interval"], "+")
        cell["best"] = is_sure(each)
    return {
        "rows": [
            means,
            changes,
            _row("Records with a lower loss", [shown(each and each["lower"]) for each in differences]),
            _row("Records with a higher loss", [shown(each and each["higher"]) for each in differences]),
            _row("Records compared", [shown(each and each["records"]) for each in differences]),
            _row("Records", [shown(each and each["records"]) for each in losses]),
            _row("Samples", [shown(each and each["samples"]) for each in losses]),
            _row("Step", [shown(each and each["step"]) for each in losses]),
        ],
        "notes": [breakable(note) for note in found["notes"]],
    }


def difference_text(found: Values | None) -> str:
    """Return a difference of losses."""
    return "–" if found is None or found["difference"] is None else f"{found['difference']:+.4f}"


def is_sure(found: Values | None) -> bool:
    """Return whether 0 is outside the interval of a difference of losses."""
    interval = None if found is None else found["difference_interval"]
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _equal(values: Mapping[str, Any]) -> str:
    settings = f"{values['equal']:,} settings are the same"
    if not values["settings"]:
        return f"All {settings}."
    same = (
        ""
        if any(row["name"].startswith("content of") for row in values["data"])
        else ", and so are the samples"
    )
    return f"The other {settings}{same}."


def _charts(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key, title, draw in (
        ("training", "Training loss", "line"),
        ("validation", "Validation loss", "marks"),
    ):
        series = []
        for number, (output, curve) in enumerate(zip(values["outputs"], values["curves"], strict=True)):
            points = [(step, value) for step, value in curve[key]]
            series.append(svg.Series(output["name"], draw, _smooth(points, draw), _colours(number)))  # type: ignore[arg-type]
        drawn = svg.line_chart(
            series, x_label="step", y_label="loss", title=f"{title} by step", css="chart wide"
        )
        found.append(chart(title, drawn, series, ""))
    return [each for each in found if each]


def _smooth(points: list[svg.Point], draw: str) -> list[svg.Point]:
    """Return the points, or for many of a line their centred mean over about a twentieth of the run."""
    real = svg.finite(points)
    return svg.smoothed(real, max(3, len(real) // 20) | 1) if draw == "line" and len(real) >= 20 else real


def _colours(number: int) -> str:
    """Return the classes of an output's curve; after all colours they begin again, with dashes."""
    return f"own {colour(number)}{' dashed' if number >= COLOURS else ''}"


def _evaluation(each: Values, outputs: Sequence[Values]) -> dict[str, Any]:
    lines = [
        {
            "name": output["name"],
            "share": percent(found["accuracy"] if found else None),
            "svg": interval_line(number, output["name"], found or {}, RIGHT),
        }
        for number, (output, found) in enumerate(zip(outputs, each["models"], strict=True))
    ]
    pairs = [
        {
            "model": output["name"],
            **found,
            "right": difference(found, RIGHT),
            "direction": {"text": "", "interval": "", "sure": False},
        }
        for output, found in zip(outputs, each["differences"], strict=True)
        if found
    ]
    return {
        "name": each["name"],
        "plot": {"title": "Accepted replies, with 95 % intervals", "lines": lines},
        "pairs": pairs,
        "note": _prompts(each, outputs),
    }


def _prompts(each: Values, outputs: Sequence[Values]) -> str:
    """Return a sentence on outputs that did not answer the same prompts."""
    counts = [found["prompts"] if found else 0 for found in each["models"]]
    if len(set(counts)) == 1:
        return ""
    said = ", ".join(f"{output['name']} {count:,}" for output, count in zip(outputs, counts, strict=True))
    return f"Not all answered the same prompts: {said}. Differences are over those that both answered."


def _preview(each: Values, outputs: Sequence[Values]) -> dict[str, Any]:
    replies = [
        {"who": output["name"], "text": text, "colour": colour(number)}
        for number, (output, text) in enumerate(zip(outputs, each["replies"], strict=True))
        if text is not None
    ]
    return {**each, "replies": replies}
