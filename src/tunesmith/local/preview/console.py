"""Parts that the previews of all kinds print: headings, messages, bars and what a job takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunesmith.text import visible

BAR_WIDTH = 40
BINS = 12


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line, however long."""
    console.print(Text(visible(text), style=style), soft_wrap=True)


def messages(console: Console, turns: Iterable[tuple[str, str]]) -> None:
    """Print the (role, text) of a conversation's turns in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="cyan")
    grid.add_column(overflow="fold")
    for role, text in turns:
        grid.add_row(Text(visible(role)), Text(visible(text)))
    if grid.row_count:
        console.print(Padding(grid, (0, 0, 0, 2)))


def histogram(console: Console, title: str, lengths: Sequence[dict[str, int]]) -> None:
    """Print counts by number of tokens, as `data.prepared.histogram` returns them."""
    most = max((bin_["count"] for bin_ in lengths), default=0)
    if not most:
        return
    say(console, title, "bold")
    wide = len(f"{lengths[-1]['high']}")
    for bin_ in lengths:
        bar = "█" * round(bin_["count"] / most * BAR_WIDTH) or ("▏" if bin_["count"] else "")
        number = f" {bin_['count']:,}" if bin_["count"] else ""
        low, high = f"{bin_['low']:>{wide}}", f"{bin_['high']:<{wide}}"
        say(console, f"  {low}–{high}  {bar}{number}")


def takes(console: Console, sentences: Sequence[str]) -> None:
    """Print what a job would take: calls, tokens, costs and limits, one sentence per line."""
    if sentences:
        say(console, "What it takes", "bold")
    for sentence in sentences:
        say(console, f"  {sentence}")
