"""What commands show: a progress bar while a job goes, what it did at the end, texts of unknown origin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from shlex import quote
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from tunesmith.data.outcome import sampled
from tunesmith.figures import usd
from tunesmith.local.evaluation_display import print_evaluation
from tunesmith.local.workdir import JobFolder, shown_path
from tunesmith.text import visible

LINE_SECONDS, SAME_SECONDS = 10.0, 60.0
"""Between lines where there is no terminal: at least, and until a line is repeated that says nothing new."""
PHASE_CHARACTERS, AWAITED_CHARACTERS = 60, 200
TROUBLE_CHARACTERS = 600
_LONGEST_TIME = 30


def duration(seconds: float) -> str:
    """Return seconds in people's units: 45s, 3m20s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _number(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e15 else None  # neither NaN nor infinity is below


def _count(values: dict[str, Any], name: str) -> int | None:
    number = _number(values, name)
    return int(number) if number is not None and number >= 0 else None


def money(spent: float, lost: float, calls: int = 0) -> str:
    """Return what calls have cost, and what those lost in flight may have cost, if known."""
    number = f" ({calls:,} call{'' if calls == 1 else 's'})" if calls else ""
    return usd(spent) + (f", at most {usd(lost)} more lost in flight{number}" if lost else "")


def details(values: dict[str, Any]) -> str:
    """Loss, accepted replies, tokens a second, money and time left, if they are known and are numbers."""
    lost = _number(values, "lostInFlightUsd") or 0.0
    words = {
        "loss": lambda x: f"loss {x:.4f}",
        "evalLoss": lambda x: f"val {x:.4f}",
        "acceptanceRate": lambda x: f"{x:.0%} accepted",
        "tokensPerSecond": lambda x: f"{x:,.0f} tok/s",
        "spentUsd": lambda x: f"spent {money(x, lost)}",
        "secondsLeft": lambda x: f"{duration(x)} left",
    }
    numbers = {name: _number(values, name) for name in words}
    return "  ".join(words[name](number) for name, number in numbers.items() if number is not None)


@dataclass(frozen=True, slots=True)
class Moment:
    """The progress that rank 0 reports, as far as it is plausible."""

    phase: str
    step: int
    total: int | None
    text: str
    trouble: str = ""
    """What holds the job up, and since when."""

    @property
    def steps(self) -> str:
        """`12/24`, or nothing if there are no steps yet."""
        return f"{self.step}/{self.total}" if self.total else ""


def read_moment(values: dict[str, Any]) -> Moment | None:
    """Read /progress; it is not trusted to say anything sensible. None if it says nothing."""
    phase = values.get("phase")
    if not isinstance(phase, str) or not phase.strip():
        return None
    phase = visible(" ".join(phase.split()))[:PHASE_CHARACTERS]
    text = (phase in ("training", "sampling", "generating") and details(values)) or phase
    if phase == "generating" and isinstance(awaited := values.get("awaited"), str):
        text += f"  {visible(' '.join(awaited.split()))[:AWAITED_CHARACTERS]}"
    records = _count(values, "records")
    if records:
        text += f" ({records:,} records)"
    trouble = trouble_in_words(values.get("trouble"))
    return Moment(phase, _count(values, "step") or 0, _count(values, "total") or None, text, trouble)


def trouble_in_words(said: Any) -> str:
    """What rank 0 says of its trouble, with since when; empty if it says nothing or nothing sensible."""
    if not isinstance(said, dict) or not all(isinstance(said.get(key), str) for key in ("message", "since")):
        return ""
    since = visible(said["since"])[:_LONGEST_TIME]
    return f"since {since}: {visible(' '.join(said['message'].split()))[:TROUBLE_CHARACTERS]}"


class JobProgress:
    """A bar on a terminal; elsewhere a line of news every ten seconds, and one a minute without news."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._last_time, self._last_phase, self._last_line = time.monotonic(), "", ""
        self._trouble = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[steps]}", markup=False),
            TextColumn("{task.fields[details]}", style="cyan", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=None, steps="", details="starting")

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def tell(self, values: dict[str, Any]) -> None:
        """Show the progress that rank 0 reports now."""
        moment = read_moment(values)
        if moment is None:
            return
        text = f"{moment.text}  waiting" if moment.trouble else moment.text
        self._bar.update(
            self._task, total=moment.total, completed=moment.step, steps=moment.steps, details=text
        )
        self._tell_trouble(moment.trouble)
        self._line(moment)

    def _tell_trouble(self, trouble: str) -> None:
        """Print a line when trouble begins or changes, and one when it is over."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        sign = (f"{self._name}  waiting, ", "yellow") if trouble else (f"{self._name}  continues", "green")
        self._console.print(Text.assemble(sign, trouble), soft_wrap=True)

    def _line(self, moment: Moment) -> None:
        if self._console.is_terminal:
            return
        parts = [self._name, moment.steps, moment.text, moment.trouble and f"waiting, {moment.trouble}"]
        line = "  ".join(part for part in parts if part)
        pause = SAME_SECONDS if line == self._last_line else LINE_SECONDS
        if time.monotonic() - self._last_time >= pause or moment.phase != self._last_phase:
            self._console.print(Text(line), soft_wrap=True)
            self._last_time, self._last_phase, self._last_line = time.monotonic(), moment.phase, line


def preview_table(previews: list[dict[str, Any]]) -> Table:
    """Return a table of previews before and after, side by side."""
    table = Table(title="Previews", show_lines=True, expand=True)
    table.add_column("prompt", ratio=2, overflow="fold")
    table.add_column("before", ratio=3, style="dim", overflow="fold")
    table.add_column("after", ratio=3, style="green", overflow="fold")
    for preview in previews:
        texts = (preview["messages"][-1]["content"], preview["before"], preview["after"])
        table.add_row(*(Text(visible(text)) for text in texts))
    return table


def show_result(
    console: Console, result: dict[str, Any], folder: JobFolder, uri: str, chat_options: str = ""
) -> None:
    """Show what a finished FineTuneJob did, where its files are, and how to chat with the model."""
    if result["previews"]:
        console.print(preview_table(result["previews"]))
    loss = result["validationLoss"]
    if loss["before"] is not None and loss["after"] is not None:
        before = (f"{loss['before']:.4f} before", "dim")
        after = (f"{loss['after']:.4f} after", "bold green")
        console.print(Text.assemble("Validation loss  ", before, "  →  ", after), soft_wrap=True)
    for each in result.get("evaluation", []):
        print_evaluation(console, each)
    if result.get("exports"):
        shares = (f"{each['name']} ({each['equalTokens']:.1%} equal tokens)" for each in result["exports"])
        _line(console, "Exports", ", ".join(shares))
    if result.get("hub"):
        _line(console, "Hub", f"{result['hub']['repoId']}, commit {result['hub']['commit']}")
    name = "Model" if result["method"] == "full" else "Adapter"
    for word, path in ((name, folder.output / "final_model"), ("Report", folder.output / "report.html")):
        if path.exists():
            _line(console, word, shown_path(path))
    _line(console, "Output", uri)
    _line(console, "Time", duration(result["seconds"]))
    model = folder.output / "final_model"
    address = shown_path(model) if model.exists() else f"{uri.rstrip('/')}/final_model"
    from tunesmith.data.prompts.presets import read_presets  # a tenth of a second, not needed before

    presets = read_presets(model)
    # With several presets, `chat` needs one named; a single one is its default.
    asked = f" --as {quote(presets[0].name)}" if len(presets) > 1 else ""
    _line(console, "Try it", f"tunesmith chat --model {quote(address)}{asked}{chat_options}")


def show_sampling(console: Console, stats: dict[str, Any], folder: JobFolder, uri: str) -> None:
    """Show what a finished RejectionSampleJob kept, and where its files are."""
    style = "bold green" if stats["accepted"] else "bold yellow"
    console.print(Text(sampled(stats), style=style), soft_wrap=True)
    if stats["acceptance_rate"] is not None:
        _line(console, "Rate", f"{stats['acceptance_rate']:.1%} of {stats['generations']:,} replies")
    none = stats["prompts_with_none_correct"]
    _line(console, "Prompts", f"{stats['total_prompts']:,}, {none:,} without an accepted reply")
    if (folder.output / "report.html").exists():
        _line(console, "Report", shown_path(folder.output / "report.html"))
    _line(console, "Output", uri)
    _line(console, "Time", duration(stats["seconds"]))


def show_dialogues(console: Console, stats: dict[str, Any], folder: JobFolder, uri: str) -> None:
    """Show what a finished DialogueGenJob wrote, or would do (dry run)."""
    total = stats["total"]
    tokens = f"{total['tokens']['prompt']:,} of prompts, {total['tokens']['completion']:,} of replies"
    if "requests" in stats:
        console.print(
            Text(f"Dry run: nothing was sent. {stats['dialogues']:,} dialogues of {stats['rounds']} rounds")
        )
        _line(console, "Calls", f"about {total['calls']:,}")
        _line(console, "Tokens", f"about {tokens}")
        _line(console, "Cost", f"about {usd(total['cost_usd'])}, at most {usd(stats['most_cost_usd'])}")
        _line(console, "Time", f"about {duration(stats['seconds'])}")
        _line(console, "Requests", f"{uri.rstrip('/')}/dry-run/dry_run.json")
        return
    found = stats["dialogues"]
    done = (f"{found['finished']:,} of {found['planned']:,} dialogues", "bold green")
    console.print(Text.assemble("Finished ", done), soft_wrap=True)
    if found["reasons"]:
        counts = sorted(found["reasons"].items(), key=lambda reason: -reason[1])
        _line(console, "Failed", ", ".join(f"{number:,} {reason}" for reason, number in counts))
    _line(console, "Calls", f"{total['calls']:,}, {total['retries']:,} retries")
    _line(console, "Tokens", tokens)
    if total["cost_usd"] or stats["lost_in_flight_usd"]:
        lost = (stats["lost_in_flight_usd"], stats["lost_in_flight_calls"])
        _line(console, "Cost", money(total["cost_usd"], *lost))
    if (folder.output / "report.html").exists():
        _line(console, "Report", shown_path(folder.output / "report.html"))
    _line(console, "Output", uri)
    _line(console, "Time", duration(stats["seconds"]))


def _line(console: Console, name: str, text: str) -> None:
    console.print(Text(f"{name:9}{text}"), soft_wrap=True)
