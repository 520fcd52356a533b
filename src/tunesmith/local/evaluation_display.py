"""What commands show of evaluations: each model's accuracy, and how the first one differs from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.local.workdir import JobFolder, shown_path
from tunesmith.text import visible


def print_evaluation(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Print one evaluation: a line for base and tuned model, a table if there are others or several sets."""
    compared = evaluation.get("compared")
    if compared and (len(compared["names"]) > 2 or "base" not in evaluation or compared["sets"]):
        console.print(_table(evaluation["name"], compared))
        for pair in compared["pairs"]:
            if pair["model"] == compared["subject"]:
                console.print(_difference(pair), soft_wrap=True)
    else:
        console.print(evaluation_line(evaluation), soft_wrap=True)


def evaluation_line(evaluation: Mapping[str, Any]) -> Text:
    """Return the accuracy of base and tuned model on one test set."""
    parts: list[str | tuple[str, str]] = [f"Accuracy ({visible(evaluation['name'])})  "]
    for side, word, style in (("base", "before", "dim"), ("tuned", "after", "bold green")):
        found = evaluation[side]
        low, high = found["accuracy_interval"]
        parts.append((f"{found['accuracy']:.1%} {word} ({low:.0%} to {high:.0%})", style))
        parts.append("  →  " if side == "base" else f"  of {found['total_prompts']:,} prompts")
    return Text.assemble(*parts)


def _table(name: str, compared: Mapping[str, Any]) -> Table:
    total, sets = compared["total"], compared["sets"]
    over = f"{total['prompts']:,} prompts" + (f" in {len(sets):,} sets" if sets else "")
    table = Table(title=Text(f"{visible(name)}: {over}"), title_justify="left")
    table.add_column("model", overflow="fold")
    table.add_column("right", justify="right")
    directions = "direction_rate" in total["models"][0]
    if directions:
        table.add_column("in the law's direction", justify="right")
    for model, found in zip(compared["names"], total["models"], strict=True):
        shares = ["accuracy", *(["direction_rate"] if directions else [])]
        style = "bold green" if model == compared["subject"] else ""
        table.add_row(Text(visible(model)), *(_share(found, share) for share in shares), style=style)
    return table


def _share(found: Mapping[str, Any], name: str) -> str:
    if found[name] is None:
        return "–"
    low, high = found[f"{name}_interval"]
    return f"{found[name]:.1%} ({low:.0%} to {high:.0%})"


def _difference(pair: Mapping[str, Any]) -> Text:
    """Return a sentence on two models: of the law's direction if cases have one, else accepted replies."""
    name = "direction_difference" if pair.get("direction_difference") is not None else "difference"
    if pair[name] is None:
        return Text(f"{visible(pair['model'])} and {visible(pair['against'])} share no prompt")
    low, high = pair[f"{name}_interval"]
    what = "in the law's direction" if name == "direction_difference" else "right"
    return Text(
        f"{visible(pair['model'])} against {visible(pair['against'])}: {100 * pair[name]:+.1f} points {what} "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    )


def show_evaluation(console: Console, result: Mapping[str, Any], folder: JobFolder, uri: str) -> None:
    """Show the results of a FineTuneJob that trains nothing, and where its files are."""
    for preview in result["previews"]:
        console.print(_replies(preview))
    for each in result["evaluation"]:
        print_evaluation(console, each)
    report = folder.output / "report.html"
    if report.exists():
        console.print(Text(f"{'Report':9}{shown_path(report)}"), soft_wrap=True)
    console.print(Text(f"{'Output':9}{uri}"), soft_wrap=True)
    console.print(Text(f"{'Time':9}{round(result['seconds']):,}s"), soft_wrap=True)


def _replies(preview: Mapping[str, Any]) -> Table:
    """Return the models' replies to one preview."""
    table = Table(title=Text(visible(preview["messages"][-1]["content"])), show_lines=True, expand=True)
    table.add_column("model", ratio=1, overflow="fold")
    table.add_column("reply", ratio=3, overflow="fold")
    for reply in preview["replies"]:
        table.add_row(Text(visible(reply["model"])), Text(visible(reply["text"])))
    return table
