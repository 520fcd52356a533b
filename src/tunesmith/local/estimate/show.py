"""An estimate on the terminal: tables, and sentences about what was assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunesmith.figures import binary_size, usd, usd_number
from tunesmith.local.estimate.options import Values
from tunesmith.local.preview.console import say

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "head": "output layer and loss",
    "communication": "buffers for sending",
    "reserve": "CUDA, unused (assumed)",
}


def show_estimate(console: Console, values: Values) -> None:
    """Print what one job will need."""
    if "roles" in values:
        _dialogues(console, values)
    elif "parts" in (values.get("memory") or {}):
        _training(console, values)
    elif "run" in values:
        _sampling(console, values)
    for note in values["notes"]:
        say(console, note, "dim")
    console.print()


def sentences(values: Values) -> list[str]:
    """Return the most important numbers of a training run in a few sentences, for a preview."""
    memory, run, card = values["memory"], values["run"], values["card"]
    lines = [_memory_sentence(memory, card)]
    if run["steps"]:
        each = f"{count(run['tokensPerStep'])} tokens each, {count(run['computedPerStep'])} of them computed"
        lines.append(f"{run['steps']:,} steps: {each}.")
    if run.get("seconds") is not None:
        share = f"at {run['efficiency']:.0%} of its peak ({run['efficiencyIs']})"
        lines.append(f"{_about(run['seconds'])} on {values['gpus']} × {card}, {share}.")
    disk = values["disk"]
    lines.append(f"Disk: {binary_size(disk['scratch'])}; download: {binary_size(disk['download'])}.")
    return lines


def _memory_sentence(memory: Values, card: str | None) -> str:
    checkpointing = "with" if memory["gradientCheckpointing"] else "without"
    of = f" of {binary_size(memory['card'])} ({card})" if card else ""
    fits = "" if memory["fits"] is not False else ": it does not fit"
    return f"Memory: about {binary_size(memory['total'])}{of} {checkpointing} gradient checkpointing{fits}."


def hours(seconds: float) -> str:
    """Return a time as people read it."""
    if 0 < seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _about(seconds: float) -> str:
    """Return an estimated time as the beginning of a sentence."""
    return f"About {hours(seconds)}" if seconds >= 1 or not seconds else hours(seconds).capitalize()


def count(number: float) -> str:
    """Return a large number in short form."""
    for unit, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit * 10:
            return f"{number / unit:,.0f}{name}" if number >= unit * 100 else f"{number / unit:,.1f}{name}"
    return f"{number:,.0f}"


def _grid(console: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    say(console, title, "bold")
    console.print(Padding(table, (0, 0, 1, 2)))


def _training(console: Console, values: Values) -> None:
    card, gpus = values["card"], values["gpus"]
    _grid(console, _where(values), _memory_rows(values))
    _grid(console, "Run", _run_rows(values["run"], gpus, card))
    _grid(console, "Disk and storage", _disk_rows(values["disk"]))
    rows = [
        (each["card"], each["needed"], each["fits"], each["hours"] and each["hours"] * 3600)
        for each in values["cards"]
    ]
    _choices(console, "On each card", "card", rows)
    rows = [
        (each["settings"], each["needed"], each["fits"], each["hours"] and each["hours"] * 3600)
        for each in values["alternatives"]
    ]
    _choices(console, f"What else would fit on {gpus} × {card}", "settings", rows)


def _where(values: Values) -> str:
    card, gpus = values["card"], values["gpus"]
    if card is None:
        return "Memory of a process, on a CPU"
    named = "" if values["cardAsked"] else ", the smallest that it fits on (--gpu names another)"
    if values["memory"]["fits"] is False and not values["cardAsked"]:
        named = ", the largest that is known"
    return f"Memory of a GPU: {gpus} × {card}{named}"


def _memory_rows(values: Values) -> list[tuple[str, str, str]]:
    memory, model = values["memory"], values["model"]
    about = {
        "weights": _model(model),
        "gradients": f"{count(model['trained'])} numbers are trained",
        "activations": f"{memory['tokensPerDevice']:,} tokens in a micro-batch, gradient checkpointing "
        + ("on" if memory["gradientCheckpointing"] else "off"),
    }
    rows = [
        (_PARTS[name], binary_size(size), about.get(name, ""))
        for name, size in memory["parts"].items()
        if size or name != "communication"
    ]
    limit = (
        f"of {binary_size(memory['card'])}: " + ("fits" if memory["fits"] else "does not fit")
        if memory["card"]
        else ""
    )
    rows.append(("total", binary_size(memory["total"]), limit))
    if memory["mainMemory"]:
        rows.append(("main memory of a node", binary_size(memory["mainMemory"]), "for what is offloaded"))
    return rows


def _model(model: Values) -> str:
    active = model["activeParameters"]
    used = f", {count(active)} of them used by a token" if active < model["parameters"] else ""
    return f"{count(model['parameters'])} parameters{used}"


def _run_rows(run: Values, gpus: int, card: str | None) -> list[tuple[str, str, str]]:
    steps = run["steps"]
    rows = [
        ("samples", f"{run['samples']:,}", f"{count(run['sampleTokens'])} tokens"),
        (
            "steps",
            f"{steps:,}" if steps else "unknown",
            f"{run['microBatchesPerStep']:g} micro-batches per GPU",
        ),
        ("tokens per step", f"{run['tokensPerStep']:,}", f"{run['computedPerStep']:,} computed"),
        ("operations", count(run["flops"] or run["flopsPerStep"]) + "FLOP", "" if steps else "per step"),
    ]
    if card is None:
        return rows
    said = f"at {run['efficiency']:.0%} of the card's peak, {run['efficiencyIs']}"
    rows.append(("time per step", _short_time(run["secondsPerStep"]), said))
    if run["seconds"] is not None:
        rows.append(("time", hours(run["seconds"]), _gpu_hours(run["gpuHours"]) if gpus > 1 else ""))
    return rows


def _short_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.2g} ms"


def _gpu_hours(number: float) -> str:
    return f"{number:,.1f} GPU hours" if number >= 0.1 else "under 0.1 GPU hours"


def _disk_rows(disk: Values) -> list[tuple[str, str, str]]:
    asked = disk["scratchAsked"]
    room = (
        ""
        if asked is None
        else f"of {binary_size(asked)}: " + ("fits" if asked >= disk["scratch"] else "too small")
    )
    return [
        ("download", binary_size(disk["download"]), ""),
        ("scratch disk of a node", binary_size(disk["scratch"]), room),
        ("a checkpoint", binary_size(disk["checkpoint"]), ""),
        ("storage", binary_size(disk["stored"]), "checkpoints kept and the final model"),
    ]


def _choices(console: Console, title: str, name: str, rows: Sequence[tuple[str, float, bool, Any]]) -> None:
    """Print settings or cards with what they need; those that do not fit are dim."""
    if not rows:
        return
    table = Table(box=None, padding=(0, 2), show_edge=False)
    table.add_column(name, no_wrap=True)
    for column in ("memory", "time"):
        table.add_column(column, justify="right")
    table.add_column("")
    for what, needed, fits, seconds in rows:
        time = hours(seconds) if seconds is not None and fits else ""
        style = "" if fits else "dim"
        table.add_row(what, binary_size(needed), time, "fits" if fits else "does not fit", style=style)
    say(console, title, "bold")
    console.print(Padding(table, (0, 0, 1, 0)))


def _sampling(console: Console, values: Values) -> None:
    run, memory = values["run"], values["memory"]
    if memory is not None:
        room = f"{memory['repliesAtOnce']:,} replies at once" if memory["fits"] else "does not fit"
        _grid(
            console,
            _where_sampled(values),
            [
                ("weights", binary_size(memory["weights"]), _model(values["model"])),
                ("cache", binary_size(memory["cachePerToken"]), "per token"),
                ("replies", room, ""),
            ],
        )
    rows = [
        ("prompts", f"{run['prompts']:,}", f"{count(run['promptTokens'])} tokens"),
        ("replies", f"{run['replies']:,}", f"about {count(run['replyTokens'])} tokens, at most "
         f"{count(run['mostReplyTokens'])}"),
    ]  # fmt: skip
    if run["seconds"] is not None:
        rows.append(("time", hours(run["seconds"]), f"at most {hours(run['mostSeconds'])}"))
    rows.append(("download", binary_size(values["disk"]["download"]), ""))
    _grid(console, "Run", rows)
    choices = [(each["card"], each["needed"], each["fits"], each["seconds"]) for each in values["cards"]]
    _choices(console, "On each card", "card", choices)


def _where_sampled(values: Values) -> str:
    named = "" if values["cardAsked"] else ", the smallest that it fits on (--gpu names another)"
    return f"Memory of a GPU: {values['gpus']} × {values['card']}{named}"


def _dialogues(console: Console, values: Values) -> None:
    run = values["run"]
    table = Table(box=None, padding=(0, 2), show_edge=False)
    table.add_column("role")
    table.add_column("model", overflow="fold")
    for column in ("calls", "tokens of prompts", "of replies", "USD"):
        table.add_column(column, justify="right")
    for name, each in [*values["roles"].items(), ("all", values["total"])]:
        tokens = each["tokens"]
        cells = (
            f"{each['calls']:,}",
            f"{tokens['prompt']:,}",
            f"{tokens['completion']:,}",
            usd_number(each["cost_usd"]),
        )
        table.add_row(name, each.get("model", ""), *cells)
    say(console, f"{run['dialogues']:,} dialogues of {run['rounds']} rounds", "bold")
    console.print(Padding(table, (0, 0, 1, 0)))
    if values["mostCostUsd"]:
        say(console, f"At most {usd(values['mostCostUsd'])}, if every reply is as long as it may be.")
    budget = values["budgetUsd"]
    if budget is not None and values["total"]["cost_usd"] > budget:
        say(console, f"budget.maxUsd is {budget:g}: the job would stop before its end.", "yellow")
    if run["batches"]:
        say(console, f"{run['batches']} batches, one after the other; each may take a day.")
    elif run["busiest"]:
        say(console, f"{_about(run['seconds'])}, for which endpoint {run['busiest']} decides.")
