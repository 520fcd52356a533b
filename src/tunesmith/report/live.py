"""The page of a running job: plain values in, one self-contained HTML page out, which fetches itself anew.

All text is escaped, as in every report. The page has one script, known by its digest, that fetches the same
address every two seconds and replaces the parts that have changed; without scripts the page reloads. Once the
address gives another page, such as the report of the finished job, it becomes that page. Does not depend on
where the values come from.
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.figures import decimal_size, usd
from tunesmith.report import svg
from tunesmith.report.finetune import (
    chart,
    environment,
    loss_chart,
    points_of,
    with_smooth_line,
    without_control_characters,
)
from tunesmith.report.values import Values

_GB = 1e9
_FACTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "Loss", lambda x: f"{x:.4f}"),
    ("evalLoss", "Validation loss", lambda x: f"{x:.4f}"),
    ("accepted", "Accepted replies", lambda x: f"{x:,.0f}"),
    ("acceptanceRate", "Of all replies", lambda x: f"{x:.1%}"),
    ("dialogues", "Dialogues", lambda x: f"{x:,.0f}"),
    ("spentUsd", "Spent", usd),
    ("lostInFlightUsd", "Lost in flight, at most", usd),
    ("tokensPerSecond", "Tokens per second", lambda x: f"{x:,.0f}"),
    ("gpuMemoryBytes", "Memory of the GPU", decimal_size),
    ("memory", "Main memory", decimal_size),
    ("epoch", "Epoch", lambda x: f"{x:.2f}"),
    ("records", "Records read", lambda x: f"{x:,.0f}"),
    ("engineRestarts", "Restarts of engines", lambda x: f"{x:,.0f}"),
)
_OVER_TIME = (
    ("acceptanceRate", "Accepted, % of replies", 100.0),
    ("dialogues", "Dialogues", 1.0),
    ("spentUsd", "USD spent", 1.0),
    ("tokensPerSecond", "Tokens per second", 1.0),
    ("memory_bytes", "Main memory, GB", 1 / _GB),
)


@cache
def live_script() -> str:
    """Return the page's script."""
    return Path(__file__).with_name("live.js").read_text("utf-8")


@cache
def live_policy() -> str:
    """Return the Content-Security-Policy: this one script, this address, and nothing else."""
    digest = b64encode(hashlib.sha256(live_script().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def render_live(state: Values) -> str:
    """Return the HTML of the page. The keys of `state`, each of which may be absent or empty:

    job {kind, name, attempt, output}, progress (as /progress has it), rows [as in metrics.jsonl],
    moments [{seconds, memory_bytes and numbers of the progress}], log [str],
    previews [{name, messages: [{role, content}], replies: [{who, text, note}]}],
    outcome {ok, text, files: [(name, place)]} of a job that has ended,
    jobs [{subject, state, link}] if there are several.
    """
    job, progress = state.get("job") or {}, state.get("progress") or {}
    moments = state.get("moments") or []
    values = {
        "title": job.get("name") or "Tunesmith",
        "subtitle": _subtitle(job),
        "phase": _text(progress.get("phase")) or "starting",
        "bar": _bar(progress),
        "trouble": _trouble(progress.get("trouble")),
        "outcome": state.get("outcome"),
        "jobs": state.get("jobs") or [],
        "facts": _facts({**_last(moments), **progress}),
        "charts": charts(state.get("rows") or [], moments),
        "previews": state.get("previews") or [],
        "log": "\n".join(state.get("log") or []),
        "output": job.get("output") or "",
        "script": live_script(),
    }
    return without_control_characters(environment().get_template("live.html.j2").render(**values))


def charts(rows: Sequence[Values], moments: Sequence[Values]) -> dict[str, list[dict[str, Any]]]:
    """Return the curves, `wide` and `small` ones: of a training by step, of everything else over time."""
    steps = [row for row in rows if "loss" in row]
    if not steps:
        return {"wide": [], "small": _over_time(moments)}
    evals = [row for row in rows if "eval_loss" in row]
    memory = [{**row, "gigabytes": row["memory_bytes"] / _GB} for row in steps if row.get("memory_bytes")]
    small = [
        _small("Tokens per second", with_smooth_line("tokens per second", steps, "tokens_per_second")),
        _small("Peak memory, GB", [svg.Series("peak memory", "line", points_of(memory, "gigabytes"))]),
        _small("Learning rate", [svg.Series("learning rate", "line", points_of(steps, "learning_rate"))]),
    ]
    wide = loss_chart(steps, evals)
    return {"wide": [wide] if wide else [], "small": [each for each in small if each]}


def _small(title: str, series: Sequence[svg.Series], unit: str = "step") -> dict[str, Any] | None:
    drawn = svg.line_chart(
        series, x_label=unit, y_label="", title=f"{title} by {unit}", width=340, height=210
    )
    return chart(title, drawn, [], "")


def _over_time(moments: Sequence[Values]) -> list[dict[str, Any]]:
    if len(moments) < 2:
        return []
    longest = moments[-1]["seconds"]
    unit, size = ("second", 1) if longest < 180 else ("minute", 60) if longest < 10_800 else ("hour", 3600)
    found = []
    for key, title, factor in _OVER_TIME:
        points = [(each["seconds"] / size, each[key] * factor) for each in moments if key in each]
        found.append(_small(title, [svg.Series(title, "line", points)], unit) if len(points) > 1 else None)
    return [each for each in found if each]


def _last(moments: Sequence[Values]) -> dict[str, Any]:
    return {"memory": moments[-1].get("memory_bytes")} if moments else {}


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (label, text(number))
        for name, label, text in _FACTS
        if (number := _number(values.get(name))) is not None
    ]


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else: what a job says of itself is not trusted."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _subtitle(job: Mapping[str, Any]) -> str:
    attempt = job.get("attempt") or 1
    return " ".join(filter(None, [_text(job.get("kind")), f"attempt {attempt}" if attempt != 1 else ""]))


def _bar(progress: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return done and total steps with the time left; None if there are no steps yet."""
    step, total = _number(progress.get("step")) or 0, _number(progress.get("total"))
    if not total:
        return None
    left = _number(progress.get("secondsLeft"))
    return {"step": int(step), "total": int(total), "left": "" if left is None else _duration(left)}


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _trouble(said: Any) -> dict[str, str] | None:
    if not isinstance(said, Mapping) or not _text(said.get("message")):
        return None
    return {name: _text(said.get(name)) for name in ("reason", "message", "since")}
