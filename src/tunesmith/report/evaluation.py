"""The evaluations in a FineTuneJob's report: several models, in total and by set.

Takes plain values and returns those that `evaluation.html.j2` shows. Does not depend on how replies were
sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tunesmith.report.shares import between, percent
from tunesmith.report.values import Values

RIGHT, DIRECTION = "accuracy", "direction_rate"
_TITLES = {RIGHT: "Accepted replies", DIRECTION: "Replies in the changed law's direction"}
_DIFFERENCES = {RIGHT: "difference", DIRECTION: "direction_difference"}
COLOURS = 8  # classes m0 to m7 of models.css
LINE = 20  # height of one model's line, in pixels
_TICKS = range(0, 101, 25)


def evaluation_values(evaluations: Sequence[Values]) -> dict[str, Any]:
    """Return the values that the template's `section` shows. The keys of an evaluation:

    `name`, `models` [{`name`, `statistics` (as `sampling.statistics.SamplingStatistics.values`)}], and
    `compared` (as `sampling.models.ModelScores.values`).
    """
    return {
        "each": [_evaluation(row) for row in evaluations],
        "ticks": list(_TICKS),
        "few_ticks": [0, 50, 100],
    }


def _evaluation(row: Values) -> dict[str, Any]:
    compared = row["compared"]
    names, sets = compared["names"], compared["sets"]
    measures = measures_of(compared["total"])
    return {
        "name": row["name"],
        "legend": legend(names),
        "plots": [_plot(measure, names, compared["total"]) for measure in measures],
        "rows": [side_row(model["name"], model["statistics"]) for model in row["models"]],
        "pairs": pair_rows(compared),
        "sentences": sentences(compared),
        "names": names,
        "subject": compared["subject"],
        "others": [
            (colour(names.index(compared["subject"])), colour(number), name)
            for number, name in enumerate(names)
            if name != compared["subject"]
        ],
        "reasons": reason_rows([model["statistics"]["reasons"] for model in row["models"]]),
        "labels": _groups(compared["labels"], names, DIRECTION),
        "sets": [
            {"title": _TITLES[measure], "rows": _groups([_totals(compared), *sets], names, measure)}
            for measure in reversed(measures)
            if sets
        ],
        "changed": [
            {**change, "model": pair["model"], "against": pair["against"]}
            for pair in compared["pairs"]
            for change in pair["changed"]
        ],
    }


def measures_of(total: Values) -> list[str]:
    """Return the measures to show: accepted replies, and a changed law's direction if cases have one."""
    return [
        RIGHT,
        *([DIRECTION] if any(model.get(DIRECTION) is not None for model in total["models"]) else []),
    ]


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each model's colour and name."""
    return [(colour(number), name) for number, name in enumerate(names)]


def colour(number: int) -> str:
    """Return the CSS class of a model's colour."""
    return f"m{number % COLOURS}"


def side_row(name: str, found: Values) -> dict[str, Any]:
    """Return one model's row of the table."""
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


def sentences(compared: Values) -> list[str]:
    """Return how the evaluated model differs from each other one; none if nothing was compared."""
    said = []
    for pair in compared["pairs"]:
        if pair["model"] != compared["subject"] or pair["difference"] is None:
            continue
        text = (
            f"{pair['model']} against {pair['against']}: {points(pair['difference'])} points accepted "
            f"(95 % interval {_ends(pair['difference_interval'])}); "
            f"{pair['gained']:,} of {pair['prompts']:,} prompts improved, {pair['lost']:,} got worse."
        )
        if pair.get("direction_difference") is not None:
            text += (
                f" In the law's direction {points(pair['direction_difference'])} points "
                f"({_ends(pair['direction_difference_interval'])})."
            )
        said.append(text)
    return said


def pair_rows(compared: Values) -> list[dict[str, Any]]:
    """Return a row per pair of models, if there are more than two models."""
    if len(compared["names"]) < 3:
        return []
    return [
        {
            **{name: pair[name] for name in ("model", "against", "prompts", "gained", "lost")},
            **{
                name: difference(pair, measure)
                for name, measure in (("right", RIGHT), ("direction", DIRECTION))
            },
        }
        for pair in compared["pairs"]
    ]


def difference(pair: Values, measure: str) -> dict[str, Any]:
    """Return a difference as text, with its interval, and whether the interval excludes 0."""
    name = _DIFFERENCES[measure]
    if pair.get(name) is None:
        return {"text": "–", "interval": "", "sure": False}
    low, high = pair[f"{name}_interval"]
    return {"text": points(pair[name]), "interval": f"{_ends((low, high))}", "sure": low > 0 or high < 0}


def points(share: float) -> str:
    """Return a difference of shares in points: `+3.1`."""
    return f"{100 * share:+.1f}"


def _ends(interval: Sequence[float]) -> str:
    return f"{points(interval[0])} to {points(interval[1])}"


def reason_rows(reasons: Sequence[Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return per reason how many replies of each model were not accepted, the most frequent reason first."""
    names = {name for counts in reasons for name in counts}
    ranked = sorted(names, key=lambda name: (*(-counts.get(name, 0) for counts in reasons), name))
    return [{"reason": name, "counts": [counts.get(name, 0) for counts in reasons]} for name in ranked]


def _totals(compared: Values) -> dict[str, Any]:
    return {"name": f"All {len(compared['sets'])} sets", "label": "", "total": True, **compared["total"]}


def _groups(groups: Sequence[Values], names: Sequence[str], measure: str) -> list[dict[str, Any]]:
    """Return one row per set or label: each model's share, and the differences of the evaluated one."""
    return [
        {
            "name": breakable(group.get("name", "")),
            "label": group["label"],
            "total": group.get("total", False),
            "prompts": group["prompts"],
            "strip": dots(names, group["models"], measure),
            "shares": [percent(model.get(measure)) for model in group["models"]],
            "differences": [difference(each, measure) for each in group["differences"]],
        }
        for group in groups
        if any(model.get(measure) is not None for model in group["models"])
    ]


def breakable(name: str) -> Any:
    """Return a name with line breaks allowed after `_` and `/`, and nowhere within a word."""
    from markupsafe import Markup

    text = escape(name)
    return Markup(text.replace("_", "_<wbr>").replace("/", "/<wbr>"))


def _plot(measure: str, names: Sequence[str], total: Values) -> dict[str, Any]:
    lines = [
        {
            "name": name,
            "share": percent(found.get(measure)),
            "svg": interval_line(number, name, found, measure),
        }
        for number, (name, found) in enumerate(zip(names, total["models"], strict=True))
    ]
    return {"title": f"{_TITLES[measure]}, with 95 % intervals", "lines": lines}


def interval_line(number: int, name: str, found: Values, measure: str) -> Any:
    """Return an <svg> as wide as its container: a model's 95 % interval, and a mark at its share."""
    share, interval = found.get(measure), found.get(f"{measure}_interval")
    body, text = "", f"{name}: no reply"
    if share is not None and interval is not None:
        low, high = (_x(end) for end in interval)
        text = f"{name}: {percent(share)}, 95 % interval {between(interval)}"
        middle = LINE // 2
        body = (
            f'<g class="{colour(number)}"><line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
            f'<line x1="{low}" x2="{low}" y1="{middle - 4}" y2="{middle + 4}"/>'
            f'<line x1="{high}" x2="{high}" y1="{middle - 4}" y2="{middle + 4}"/>'
            f'<circle cx="{_x(share)}" cy="{middle}" r="5"/></g>'
        )
    return _strip(body, text)


def dots(names: Sequence[str], models: Sequence[Values], measure: str) -> Any:
    """Return an <svg> as wide as its container with a mark at each model's share, the first one's on top."""
    middle = LINE // 2
    marks = [
        f'<circle class="{colour(number)}" cx="{_x(found[measure])}" cy="{middle}" r="4"/>'
        for number, found in enumerate(models)
        if found.get(measure) is not None
    ]
    text = ", ".join(
        f"{name} {percent(found.get(measure))}" for name, found in zip(names, models, strict=True)
    )
    return _strip("".join(reversed(marks)), text)


def _strip(body: str, text: str) -> Any:
    """Return an <svg> with positions in percent, so that marks and lines keep their size at any width."""
    from markupsafe import Markup

    grid = "".join(f'<line class="grid" x1="{t}%" x2="{t}%" y1="0" y2="{LINE}"/>' for t in _TICKS)
    title = escape(text)
    return Markup(
        f'<svg class="strip" width="100%" height="{LINE}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{grid}{body}</svg>"
    )


def _x(share: float) -> str:
    return f"{100 * share:.2f}%"
