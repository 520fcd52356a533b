"""What a local run shows: a progress bar while it goes, a table of what it did at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from tunesmith.local.workdir import JobFolder

LINE_SECONDS = 10.0


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m20s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def details(values: dict[str, Any]) -> str:
    """Loss, tokens a second and time left, as far as they are known."""
    parts = []
    if "loss" in values:
        parts.append(f"loss {values['loss']:.4f}")
    if "evalLoss" in values:
        parts.append(f"val {values['evalLoss']:.4f}")
    if "tokensPerSecond" in values:
        parts.append(f"{values['tokensPerSecond']:,.0f} tok/s")
    if "secondsLeft" in values:
        parts.append(f"{duration(values['secondsLeft'])} left")
    return "  ".join(parts)


class JobProgress:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._last_line, self._last_phase = time.monotonic(), ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[steps]}"),
            TextColumn("{task.fields[details]}", style="cyan"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=None, steps="", details="starting")

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, values: dict[str, Any]) -> None:
        """Show what rank 0 says of itself; it is not trusted to say anything sensible."""
        try:
            phase, step, total = str(values.get("phase", "")), values.get("step"), values.get("total")
            text = details(values)
        except (TypeError, ValueError):
            return
        if not phase:
            return
        shown = text if phase == "training" and text else phase
        if values.get("records"):
            shown += f" ({values['records']:,} records)"
        steps = f"{step}/{total}" if step is not None and total else ""
        self._bar.update(self._task, total=total, completed=step or 0, steps=steps, details=shown)
        self._line(phase, f"{self._name}  {steps}  {shown}".replace("    ", "  "))

    def _line(self, phase: str, text: str) -> None:
        if self._console.is_terminal:
            return
        due = time.monotonic() - self._last_line >= LINE_SECONDS
        if due or phase != self._last_phase:
            self._console.print(Text(text), soft_wrap=True)
            self._last_line, self._last_phase = time.monotonic(), phase


def preview_table(previews: list[dict[str, Any]]) -> Table:
    """Previews before and after, side by side."""
    table = Table(title="Previews", show_lines=True, expand=True)
    table.add_column("prompt", ratio=2)
    table.add_column("before", ratio=3, style="dim")
    table.add_column("after", ratio=3, style="green")
    for preview in previews:
        prompt = preview["messages"][-1]["content"]
        table.add_row(*(Text(text) for text in (prompt, preview["before"], preview["after"])))
    return table


def show_result(console: Console, result: dict[str, Any], folder: JobFolder, uri: str) -> None:
    """What a finished FineTuneJob did, and where things are."""
    if result["previews"]:
        console.print(preview_table(result["previews"]))
    loss = result["validationLoss"]
    if loss["before"] is not None and loss["after"] is not None:
        console.print(
            f"Validation loss  [dim]{loss['before']:.4f} before[/dim]"
            f"  →  [bold green]{loss['after']:.4f} after"
        )
    name = "Model" if result["method"] == "full" else "Adapter"
    _where(console, name, folder.output / "final_model")
    _where(console, "Report", folder.output / "report.html")
    console.print(Text(f"{'Output':9}{uri}"), soft_wrap=True)
    console.print(f"{'Time':9}{duration(result['seconds'])}")


def _where(console: Console, name: str, path: Path) -> None:
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    console.print(Text(f"{name:9}{shown}"), soft_wrap=True)
