"""`list`, `logs` and `status` of jobs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.errors import UsageError
from tunesmith.local.job_display import duration, read_moment
from tunesmith.local.job_files import last_lines, new_lines
from tunesmith.local.live import open_browser
from tunesmith.local.local_jobs import LocalJob, LocalState, find_job, local_jobs
from tunesmith.local.workdir import WorkDir, shown_path
from tunesmith.names import REPORT_KEY
from tunesmith.text import visible

_STYLES = {
    LocalState.RUNNING: "cyan",
    LocalState.SUCCEEDED: "green",
    LocalState.FAILED: "red",
    LocalState.STOPPED: "yellow",
}
LOOK_SECONDS = 0.5


def show_list(work_dir: Path, console: Console, now: Callable[[], float] = time.time) -> int:
    """Print a line per job of a work dir. Return the exit code."""
    jobs = local_jobs(WorkDir(work_dir))
    if not jobs:
        console.print(Text(f"There are no jobs in {shown_path(work_dir)}."), soft_wrap=True)
        return 0
    several = len({job.namespace for job in jobs}) > 1
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("NAME", "KIND", "STATE", "PROGRESS", "STARTED", "OUTPUT"):
        table.add_column(name, overflow="fold")
    for job in jobs:
        state = Text(f"{job.state}{f': {visible(job.reason)}' if job.reason else ''}", _STYLES[job.state])
        name = f"{job.namespace}/{job.name}" if several else job.name
        cells = (name, job.kind, _progress(job), f"{duration(now() - job.started)} ago", job.output)
        first, kind, *rest = (Text(visible(cell)) for cell in cells)
        table.add_row(first, kind, state, *rest)
    console.print(table)
    return 0


def _progress(job: LocalJob) -> str:
    moment = read_moment(job.progress())
    return "" if moment is None else "  ".join(filter(None, (moment.steps, moment.text)))


def show_status(name: str, work_dir: Path, open_page: bool, console: Console) -> int:
    """Print how a job is, in words, and open its page or report if asked. Return the exit code."""
    job = find_job(WorkDir(work_dir), name)
    for label, text in _facts(job):
        console.print(Text(f"{label:9}{visible(text)}"), soft_wrap=True)
    if open_page:
        address = page_of(job)
        if not open_browser(address):
            console.print(Text(f"Open     {address}"), soft_wrap=True)
    return 0


def page_of(job: LocalJob) -> str:
    """Return where a running job's page or a finished one's report is. UsageError if there is neither."""
    report = job.folder.output / REPORT_KEY
    if job.page:
        return job.page
    if job.state == LocalState.SUCCEEDED and report.is_file():
        return report.as_uri()
    raise UsageError(f"{job.name} has no page and no report here: it is {job.state}.")


def _facts(job: LocalJob) -> Iterator[tuple[str, str]]:
    moment = read_moment(job.progress())
    yield "Job", f"{job.kind} {job.name}"
    yield "State", f"{job.state}{f': {job.reason}' if job.reason else ''}"
    if job.message:
        yield "Why" if job.state != LocalState.SUCCEEDED else "Result", " ".join(job.message.split())
    if job.state == LocalState.STOPPED:
        yield "Then", "run it again to resume"
    if moment is not None:
        yield "Now", "  ".join(filter(None, (moment.steps, moment.text)))
        if moment.trouble:
            yield "Waiting", moment.trouble
    yield "Started", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started))
    report = job.folder.output / REPORT_KEY
    if job.state == LocalState.SUCCEEDED and report.is_file():
        yield "Report", shown_path(report)
    yield "Output", job.output
    yield "Log", shown_path(job.folder.log())


def show_log(
    name: str, work_dir: Path, rank: int, tail: int | None, follow: bool, write: Callable[[str], None]
) -> int:
    """Print the log of one rank, and with `follow` what is added until the job ends. Return the exit code."""
    job = find_job(WorkDir(work_dir), name)
    path = job.folder.logs / f"rank-{rank}.log" if rank else job.folder.log()
    if not path.exists() and not (follow and job.state == LocalState.RUNNING):
        logs = ", ".join(sorted(each.name for each in job.folder.logs.glob("*.log"))) or "none"
        raise UsageError(f"{job.name} has no log {path.name}; there are: {logs}.")
    size = path.stat().st_size if path.exists() else 0
    for line in last_lines(path, tail):
        write(line)
    if follow:
        lasting = lambda: find_job(WorkDir(work_dir), job.key).state == LocalState.RUNNING  # noqa: E731
        for line in new_lines(lambda: job.folder.log() if not rank else path, size, lasting, LOOK_SECONDS):
            write(line)
    return 0
