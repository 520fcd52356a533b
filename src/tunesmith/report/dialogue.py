"""The report of a DialogueGenJob: plain values in, one self-contained HTML page out.

Does not depend on where the values come from and where the page goes. See `finetune` for how pages are safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.figures import usd
from tunesmith.report import svg
from tunesmith.report.finetune import as_yaml, chart, environment, without_control_characters
from tunesmith.report.shares import of_all, percent
from tunesmith.report.svg import Bar
from tunesmith.report.values import Values

ROLES = ("question", "answer", "correction")
REASONS = {
    "empty": "empty reply",
    "blocked": "blocked by a filter",
    "malformed": "malformed reply",
    "too_long": "request too long for the model",
    "interrupted": "reply broken off by the server",
    "rate_limited": "refused (429) to the last try",
    "no_answer": "no answer to the last try",
    "not_reached": "server not reached",
    "not_shown": "left out by the model's chat template",
}


def render_dialogue_report(data: Mapping[str, Any]) -> str:
    """Return the HTML of one report. The keys of `data`, of which only `statistics` is required:

    title, notes [str], summary [(label, value)] (shown before the numbers), statistics (as returned by
    `dialogue.statistics.DialogueStatistics.values`), examples (as returned by
    `dialogue.examples.DialogueExamples.values`), config dict, versions {name: version}.
    """
    found = data["statistics"]
    values = {
        "title": data.get("title") or "Dialogue generation report",
        "summary": [*(data.get("summary") or []), *summary(found)],
        "notes": [*(data.get("notes") or []), *notes(found)],
        "rounds": round_bars(found["dialogues"]),
        "roles": [role_row(role, found["roles"][role]) for role in ROLES],
        "reasons": reason_bars(found["dialogues"]["reasons"]),
        "length_charts": length_charts(found["lengths"]),
        "costs": cost_bars(found["cost_by_round"]),
        "examples": example_groups(data.get("examples") or {}),
        "reason_names": REASONS,
        "config": as_yaml(data.get("config") or {}),
        "versions": data.get("versions") or {},
    }
    page = environment().get_template("dialogue.html.j2").render(sections=sections(values), **values)
    return without_control_characters(page)


def summary(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the most important numbers."""
    dialogues, total = found["dialogues"], found["total"]
    return [
        ("Dialogues", dialogues["planned"]),
        ("Finished", of_all(dialogues["finished"], dialogues["planned"])),
        ("Failed", dialogues["failed"]),
        ("Rounds", len(dialogues["finished_by_round"])),
        ("Calls", total["calls"]),
        ("Retries", total["retries"]),
        ("Tokens of prompts", total["tokens"]["prompt"]),
        ("Tokens of replies", total["tokens"]["completion"]),
        ("Cost", usd(total["cost_usd"])),
        ("Calls lost in flight", found["lost_in_flight_calls"]),
        ("Lost in flight, at most", usd(found["lost_in_flight_usd"])),
        ("Counts against the budget", usd(found["against_budget_usd"])),
        ("Seconds", found["seconds"]),
    ]


def notes(found: Mapping[str, Any]) -> list[str]:
    """Return sentences about what a user may want to change, or should know before using the data."""
    total, dialogues = found["total"], found["dialogues"]
    known = [
        ("Dialogues that were complete in the seeds and needed no requests", dialogues["nothing_asked"]),
        ("Texts that were truncated at maxTokens, and are marked so in the files", total["truncated"]),
        (
            "Calls whose tokens the server did not report: they are estimated at their maximum",
            total["calls_with_estimated_tokens"],
        ),
    ]
    odd = found.get("odd_replies") or {}
    known += [
        ("Texts that are far longer than maxTokens", odd.get("over_cap", 0)),
        ("Texts that contain U+FFFD, in place of invalid characters", odd.get("replacement_character", 0)),
    ]
    models = found.get("other_models") or {}
    named = [f"Answered by {name} instead of the requested model: {n:,}." for name, n in models.items()]
    return [*(f"{text}: {count:,}." for text, count in known if count), *named]


def sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (id, text) of the sections that the page has, for its line of links."""
    known = [
        ("dialogues", "Dialogues", True),
        ("roles", "Roles", True),
        ("lengths", "Lengths", values["length_charts"]),
        ("cost", "Cost", values["costs"]),
        ("examples", "Examples", values["examples"]),
        ("configuration", "Configuration", values["config"]),
        ("versions", "Versions", values["versions"]),
    ]
    return [(name, text) for name, text, present in known if present]


def round_bars(dialogues: Mapping[str, Any]) -> list[Bar]:
    """Return how many dialogues finished each round."""
    planned = dialogues["planned"]
    return [
        (f"Round {number}", count / max(1, planned), of_all(count, planned))
        for number, count in enumerate(dialogues["finished_by_round"], 1)
    ]


def reason_bars(reasons: Mapping[str, int]) -> list[Bar]:
    """Return the reasons why dialogues failed, the most frequent first."""
    total, longest = sum(reasons.values()), max(reasons.values(), default=1)
    ranked = sorted(reasons.items(), key=lambda item: -item[1])
    return [(REASONS.get(name, name), count / longest, of_all(count, total)) for name, count in ranked]


def role_row(role: str, found: Values) -> dict[str, Any]:
    """Return a role's numbers as shown in the table."""
    calls = found["calls"]
    return {
        "role": role,
        **{name: found[name] for name in ("calls", "failed", "truncated", "retries")},
        "prompt": found["tokens"]["prompt"],
        "completion": found["tokens"]["completion"],
        "seconds": round(found["seconds"] / calls, 2) if calls else None,
        "cost": usd(found["cost_usd"]),
    }


def length_charts(lengths: Mapping[str, Sequence[Values]]) -> list[dict[str, Any]]:
    """Return a chart per role of the lengths of its texts; roles without texts are left out."""
    charts = []
    for role in ROLES:
        bars = [(row["low"], row["high"] + 1, row["count"]) for row in lengths[role]]
        title = f"{role.capitalize()}s by length"
        drawn = svg.bar_chart(
            bars, x_label="tokens", y_label="texts", title=f"{title} in tokens", width=340, height=210
        )
        made = chart(title, drawn, [], "")
        charts += [made] if made else []
    return charts


def cost_bars(rounds: Sequence[Values]) -> list[Bar]:
    """Return the cost of each role in each round; those without cost are left out."""
    costs = [(f"Round {row['round']}, {role}", row[role]) for row in rounds for role in ROLES if row[role]]
    longest, total = max((cost for _, cost in costs), default=1), sum(cost for _, cost in costs)
    return [(name, cost / longest, f"{usd(cost)} ({percent(cost / total)})") for name, cost in costs]


def example_groups(examples: Mapping[str, Sequence[Values]]) -> list[tuple[str, Sequence[Values]]]:
    """Return (heading, dialogues) of the kinds that have examples."""
    headings = {"finished": "Finished dialogues", "failed": "Dialogues that failed"}
    return [(text, examples[kind]) for kind, text in headings.items() if examples.get(kind)]
