"""A comparison in the terminal: one line per output, with what differs and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.report.comparison_page import (
    difference_text,
    interval_text,
    is_sure,
    measure_text,
    short_fields,
    value_text,
)
from tunesmith.text import visible

MOST_FIELDS = 5
_SHOWN = {
    "FineTuneJob": ("steps", "training loss", "validation loss before", "validation loss after", "time"),
    "RejectionSampleJob": ("prompts", "replies", "accepted", "tokens sampled", "time"),
    "DialogueGenJob": ("dialogues", "finished", "failed", "calls", "cost", "time"),
}


def print_comparison(console: Console, values: Mapping[str, Any]) -> None:
    """Print the table, and what it leaves out."""
    console.print(_table(values))
    hidden = values["settings"][MOST_FIELDS:]
    if hidden:
        names = ", ".join(visible(row["field"]) for row in hidden)
        console.print(Text(f"Also different, see the page: {names}"), soft_wrap=True)
    if not values["settings"]:
        console.print(Text("All settings are the same."), soft_wrap=True)
    validation = values["validation"] or {"differences": [], "notes": []}
    for output, difference in zip(values["outputs"], validation["differences"], strict=False):
        if difference is not None:
            console.print(_loss_difference(output["name"], difference), soft_wrap=True)
    for note in validation["notes"]:
        console.print(Text(visible(note)), soft_wrap=True)
    for each in values["evaluations"]:
        for output, difference in zip(values["outputs"], each["differences"], strict=True):
            if difference is not None:
                console.print(_difference(output["name"], each["name"], difference), soft_wrap=True)


def _table(values: Mapping[str, Any]) -> Table:
    fields = values["settings"][:MOST_FIELDS]
    measures = [each for each in values["measures"] if each["name"] in _SHOWN[values["kind"]]]
    table = Table(title=Text(f"{len(values['outputs'])} outputs of {values['kind']}s"), title_justify="left")
    table.add_column("output", overflow="fold")
    for name in short_fields([row["field"] for row in fields]):
        table.add_column(Text(visible(name)), overflow="fold")
    for each in measures:
        table.add_column(each["name"], justify="right")
    for each in values["evaluations"]:
        table.add_column(Text(visible(each["name"])), justify="right")
    for number, output in enumerate(values["outputs"]):
        state = "" if output["state"] == "finished" else f"\n{output['state']}"
        cells = [f"{output['name']}{state}"]
        cells += [value_text(row["values"][number]) for row in fields]
        cells += [
            measure_text(each["values"][number], each["unit"]) + _loss_interval(values, each["name"], number)
            for each in measures
        ]
        cells += [_share(each["models"][number]) for each in values["evaluations"]]
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _loss_interval(values: Mapping[str, Any], name: str, number: int) -> str:
    """Return a line with the interval of the final validation loss; "" for other measures."""
    found = values["validation"] and values["validation"]["losses"][number]
    if name != "validation loss after" or not found or found["loss_interval"] is None:
        return ""
    return f"\n({interval_text(found['loss_interval'])})"


def _loss_difference(name: str, found: Mapping[str, Any]) -> Text:
    interval = interval_text(found["difference_interval"], "+") or "unknown"
    return Text(
        f"validation loss: {visible(name)} against {visible(found['against'])} {difference_text(found)} "
        f"(95 % interval {interval}, {found['records']:,} records)",
        style="bold" if is_sure(found) else "",
    )


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["accuracy_interval"]
    return f"{found['accuracy']:.1%} ({low:.0%} to {high:.0%})"


def _difference(name: str, evaluation: str, found: Mapping[str, Any]) -> Text:
    low, high = found["difference_interval"]
    return Text(
        f"{visible(evaluation)}: {visible(name)} against {visible(found['against'])} "
        f"{100 * found['difference']:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}, "
        f"{found['prompts']:,} prompts)",
        style="bold" if low > 0 or high < 0 else "",
    )
