"""The report of a RejectionSampleJob: plain values in, one self-contained HTML page out.

Does not depend on where the values come from and where the page goes. See `finetune` for how pages are safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.outcome import acceptance, nothing_accepted
from tunesmith.report import svg
from tunesmith.report.finetune import as_yaml, chart, environment, without_control_characters
from tunesmith.report.shares import between, of_all, percent
from tunesmith.report.svg import Bar
from tunesmith.report.values import Values

MOST_BARS, MOST_PAIRS = 17, 10


def render_sampling_report(data: Mapping[str, Any]) -> str:
    """Return the HTML of one report. The keys of `data`, of which only `statistics` is required:

    title, notes [str], summary [(label, value)] (shown before the numbers), statistics (as returned by
    `sampling.statistics.SamplingStatistics.values`), examples (as returned by
    `sampling.examples.PromptExamples.values`), config dict, versions {name: version}.
    """
    found = data["statistics"]
    values = {
        "title": data.get("title") or "Rejection sampling report",
        "summary": [*(data.get("summary") or []), *summary(found)],
        "notes": [*notes(found), *(data.get("notes") or [])],
        "correct": correct_bars(found["correct_per_prompt"]),
        "reasons": reason_bars(found["reasons"]),
        "length_chart": length_chart(found["lengths"]),
        "directions": [direction_row(row) for row in found["directions"]],
        "wrong_charges": charge_bars(found["wrong_charges"]),
        "other_charges": other_charges(found["wrong_charges"]),
        "examples": example_groups(data.get("examples") or {}),
        "config": as_yaml(data.get("config") or {}),
        "versions": data.get("versions") or {},
    }
    page = environment().get_template("sampling.html.j2").render(sections=sections(values), **values)
    return without_control_characters(page)


def summary(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the most important numbers."""
    prompts = found["total_prompts"]
    return [
        ("Replies", acceptance(found)),
        ("Acceptance rate", percent(found["acceptance_rate"])),
        ("Prompts", prompts),
        ("Replies sampled", found["generations"]),
        ("95 % interval", between(found["acceptance_rate_interval"])),
        ("Accepted per prompt", f"{found['mean_correct_per_prompt']:.2f} of {found['num_samples']}"),
        ("Prompts with none accepted", of_all(found["prompts_with_none_correct"], prompts)),
        ("Prompts with all accepted", of_all(found["prompts_with_all_correct"], prompts)),
        ("Tokens sampled", found["tokens"]["drawn"]),
        ("Tokens per second", found["tokens_per_second"]),
        ("Seconds", found["seconds"]),
    ]


def notes(found: Mapping[str, Any]) -> list[str]:
    """Return sentences about what a user may want to change, or should know before using the numbers."""
    known = [
        ("Replies that were truncated (see sampling.maxNewTokens)", found["truncated"]),
        ("Replies that could not be sampled, since their prompts do not fit", found["prompt_too_long"]),
        ("Replies cancelled by stopAfterAccepted, which are not counted", found["cancelled"]),
        (
            "Replies without a verdict (truncated, or the verifier failed), which preference.jsonl "
            "leaves out",
            found["without_verdict"],
        ),
    ]
    nothing = nothing_accepted(found) if found["planned_generations"] > found["cancelled"] else ""
    return [*([f"{nothing}."] if nothing else []), *(f"{text}: {count:,}." for text, count in known if count)]


def sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (id, text) of the sections that the page has, for its line of links."""
    known = [
        ("acceptance", "Acceptance", True),
        ("directions", "Directions", values["directions"]),
        ("wrong-charges", "Wrong charges", values["wrong_charges"]),
        ("lengths", "Lengths", values["length_chart"]),
        ("examples", "Examples", values["examples"]),
        ("configuration", "Configuration", values["config"]),
        ("versions", "Versions", values["versions"]),
    ]
    return [(name, text) for name, text, present in known if present]


def correct_bars(correct: Sequence[int]) -> list[Bar]:
    """Return bars of prompts by their number of accepted replies, which shows how easy they are.

    Many numbers are grouped; none accepted and all accepted always have separate bars.
    """
    most = len(correct) - 1
    size = max(1, -(-(most - 1) // (MOST_BARS - 2)))
    groups = [range(0, 1), *(range(low, min(low + size, most)) for low in range(1, most, size))]
    groups += [range(most, most + 1)] if most else []
    counts = [sum(correct[k] for k in group) for group in groups]
    longest, total = max(*counts, 1), sum(counts)
    return [
        (f"{_range(group)} of {most}", count / longest, of_all(count, total))
        for group, count in zip(groups, counts, strict=True)
    ]


def reason_bars(reasons: Mapping[str, int]) -> list[Bar]:
    """Return the reasons why replies were not accepted, the most frequent first."""
    total, longest = sum(reasons.values()), max(reasons.values(), default=1)
    ranked = sorted(reasons.items(), key=lambda item: -item[1])
    return [(reason, count / longest, of_all(count, total)) for reason, count in ranked]


def charge_bars(wrong: Mapping[str, Any]) -> list[Bar]:
    """Return the charges that are confused most often."""
    shown = wrong["most_frequent"][:MOST_PAIRS]
    longest = max((row["count"] for row in shown), default=1)
    return [
        (f"{row['expected']} → {row['said']}", row["count"] / longest, f"{row['count']:,}") for row in shown
    ]


def other_charges(wrong: Mapping[str, Any]) -> int:
    """Return the number of replies with a wrong charge that `charge_bars` does not show."""
    hidden: int = wrong["other"] + sum(row["count"] for row in wrong["most_frequent"][MOST_PAIRS:])
    return hidden


def length_chart(lengths: Sequence[Values]) -> dict[str, Any] | None:
    """Return a chart of accepted and rejected replies by tokens, in percent of each; None without values."""
    series = [
        svg.Series("accepted", "line", shares_by_length(lengths, "accepted")),
        svg.Series("rejected", "marks", shares_by_length(lengths, "rejected")),
    ]
    title = "Replies by length"
    drawn = svg.line_chart(
        series, x_label="tokens", y_label="% of these replies", title=title, css="chart wide"
    )
    return chart(title, drawn, series, "")


def shares_by_length(lengths: Sequence[Values], name: str) -> list[svg.Point]:
    """Return (middle of a bin, percent of all replies of this kind) per bin; empty without such replies."""
    total = sum(row[name] for row in lengths)
    return [((row["low"] + row["high"]) / 2, 100 * row[name] / total) for row in lengths] if total else []


def direction_row(row: Values) -> dict[str, Any]:
    """Return a label's numbers as shown in the table."""
    return {
        "label": row["label"],
        "prompts": row["prompts"],
        "replies": row["replies"],
        **{
            name: f"{percent(row[name])} ({between(row[f'{name}_interval'])})"
            for name in ("direction_rate", "accuracy")
        },
    }


def example_groups(examples: Mapping[str, Sequence[Values]]) -> list[tuple[str, Sequence[Values]]]:
    """Return (heading, examples) of the kinds that have examples."""
    headings = {
        "mixed": "Some replies accepted, some rejected",
        "none": "No reply accepted",
        "all": "Every reply accepted",
    }
    return [(text, examples[kind]) for kind, text in headings.items() if examples.get(kind)]


def _range(group: range) -> str:
    return f"{group[0]}" if len(group) == 1 else f"{group[0]} to {group[-1]}"
