"""The pages of `tunesmith preview --html` for prompts and dialogues: what a job would ask, and what it takes.

Does not depend on where the values come from and where the page goes. See `finetune` for how pages are safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.figures import usd
from tunesmith.report import svg
from tunesmith.report.finetune import chart, environment, without_control_characters
from tunesmith.report.values import Values

_ROLE_COLUMNS = ("Role", "Endpoint", "Model", "Calls", "Tokens in", "Tokens out", "Cost")
_LIMIT_COLUMNS = (
    "Endpoint", "Requests at once", "Requests per minute", "Tokens per minute", "Retries",
)  # fmt: skip


def render_prompts_preview(data: Mapping[str, Any]) -> str:
    """Return the HTML of one page. The keys of `data`:

    title, summary [(label, value)], takes [str], notes [str], lengths [{low, high, count}], groups
    [{title, shown: [{name, facts, turns: [(role, text)], text}]}].
    """
    bars = [(row["low"], row["high"] + 1, row["count"]) for row in data["lengths"]]
    title = "Prompts by length in tokens"
    drawn = svg.bar_chart(bars, x_label="tokens", y_label="prompts", title=title, css="chart wide")
    return _page({**data, "tables": [], "chart": chart(title, drawn, [], ""), "shown": "Prompts"})


def render_dialogues_preview(data: Mapping[str, Any]) -> str:
    """Return the HTML of one page. The keys of `data` are those of `render_prompts_preview`, and instead of
    lengths:

    roles [{role, endpoint, model, calls, tokens {prompt, completion}, cost_usd}], limits [{endpoint,
    requests_at_once, requests_per_minute, tokens_per_minute, retries}].
    """
    tables = [
        {"columns": _ROLE_COLUMNS, "rows": [_role_row(row) for row in data["roles"]]},
        {"columns": _LIMIT_COLUMNS, "rows": [list(row.values()) for row in data["limits"]]},
    ]
    return _page({**data, "tables": tables, "chart": None, "shown": "First requests"})


def _role_row(row: Values) -> Sequence[Any]:
    tokens = row["tokens"]
    told = [row[name] for name in ("role", "endpoint", "model", "calls")]
    return [*told, tokens["prompt"], tokens["completion"], usd(row["cost_usd"])]


def _page(values: Mapping[str, Any]) -> str:
    known = [
        ("takes", "What it takes", values["takes"]),
        ("data", "Data", True),
        ("shown", values["shown"], values["groups"]),
    ]
    sections = [(name, text) for name, text, present in known if present]
    page = environment().get_template("preview.html.j2").render(sections=sections, **values)
    return without_control_characters(page)
