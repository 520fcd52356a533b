"""`tunesmith preview`: the preparation that training does, shown instead of trained on. No torch."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.api.references import references
from tunesmith.artifacts.local_files import explained
from tunesmith.artifacts.store import HubAccess, storage_options
from tunesmith.data.cache import prepare_once
from tunesmith.data.prepared import FirstSample, Prepared
from tunesmith.data.report import DatasetReport
from tunesmith.engines.files import fetch_files
from tunesmith.engines.load import vocabulary_size
from tunesmith.engines.positions import max_positions
from tunesmith.errors import PermanentError, StoragePermanentError, TunesmithError
from tunesmith.local.storage import SeedUpload, run_storage, variables
from tunesmith.local.workdir import WorkDir
from tunesmith.names import Kind, secret_env
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve
from tunesmith.report.data import render_data_report
from tunesmith.report.samples import facts, grouped, sample_values
from tunesmith.text import visible
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.show import as_plain, as_text

BAR_WIDTH = 40
BINS = 12


def preview_jobs(
    jobs: Sequence[Job],
    first: int,
    work_dir: Path,
    console: Console,
    html: Path | None = None,
    seeds: Sequence[SeedUpload] = (),
) -> int:
    """Show every FineTuneJob of the files, also as a page if `html` names a file; put `seeds` into S3 first.

    Of several jobs each has its page beside it, named after the job. Returns the worst of all exit codes.
    """
    wanted = [job for job in jobs if isinstance(job.spec, FineTuneSpec) and not evaluate_only(job.spec)]
    for job in jobs:
        if job not in wanted:
            why = "it trains nothing" if job.kind == Kind.FINE_TUNE else "only FineTuneJobs can be previewed"
            _print(console, f"{job.subject}: {why}", "yellow")
    code = 0 if wanted else 2
    pages = {job.key: _page(html, job, alone=len(wanted) == 1) for job in wanted if html}
    with run_storage(wanted, seeds, WorkDir(work_dir).s3) as storage:
        storage.put(seeds)
        for job in wanted:
            console.rule(Text(job.subject))
            try:
                with variables(storage.environment(job)):
                    _preview(job, jobs, first, WorkDir(work_dir).cache, pages.get(job.key), console)
            except StoragePermanentError as error:
                code = max(code, _failed(console, error))
                _hint(console, job, embedded=job.key in storage.embedded)
            except TunesmithError as error:
                code = max(code, _failed(console, error))
    return code


def _page(html: Path, job: Job, *, alone: bool) -> Path:
    return html if alone else html.with_stem(f"{html.stem}-{job.name}")


def _failed(console: Console, error: TunesmithError) -> int:
    _print(console, error.message, "red")
    return 2 if isinstance(error, PermanentError) else 1


def _hint(console: Console, job: Job, *, embedded: bool) -> None:
    """Print what to do about an address without data."""
    names = ", ".join(f"{ref.target.kind} {ref.target.name}" for ref in references(job))
    if names:
        _print(console, f"It reads the output of {names}, which must have run before.", "dim")
    elif embedded:
        _print(
            console,
            "s3:// is the embedded S3, with the outputs of jobs and the files of `--seed S3URI=PATH`; "
            "--set FIELD=PATH uses a file or folder instead, such as --set model.uri=PATH.",
            "dim",
        )


def _preview(
    job: Job, jobs: Sequence[Job], first: int, cache: Path, page: Path | None, console: Console
) -> None:
    spec = cast(FineTuneSpec, resolve(job, output_uris(jobs)).spec)
    secret = spec.hub.token_secret_ref
    token = os.environ.get(secret_env(secret.name, secret.key) if secret else "HF_TOKEN")
    hub = HubAccess(spec.hub.endpoint, spec.hub.offline, token)
    options = dataclasses.replace(storage_options(job.spec.storage), hub=hub)
    with tempfile.TemporaryDirectory(prefix="tunesmith-preview-") as temp, ExitStack() as stack:
        folder = Path(temp)
        status = stack.enter_context(console.status("fetching the tokenizer"))
        files = fetch_files(spec.model, spec.hub, options, folder, token, tokenizer_only=True)
        tokenizer = ChatTokenizer.load(files.tokenizer, trust_remote_code=spec.model.trust_remote_code)
        _, prepared = prepare_once(
            cache,
            spec,
            tokenizer,
            options,
            lambda name, records: status.update(Text(f"{name}: {records:,} records")),
            first=first,
            vocab_size=vocabulary_size(files.base),
            positions=max_positions(files.base),
        )
        status.stop()
        show(prepared, tokenizer, console)
        if page:
            write_page(job, prepared, tokenizer, page)
            _print(console, f"Page with plots: {page}", "green")


def write_page(job: Job, prepared: Prepared, tokenizer: ChatTokenizer, page: Path) -> None:
    """Write the preview as one HTML file."""
    html = render_data_report(
        {
            "title": f"{job.name}: what it trains on",
            "datasets": prepared.report(),
            "lengths": prepared.lengths(),
            "label_lengths": prepared.label_lengths(),
            "samples": sample_values(prepared, tokenizer),
        }
    )
    with explained("write", page):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(html, "utf-8")


def show(prepared: Prepared, tokenizer: ChatTokenizer, console: Console) -> None:
    """Print the first samples of each dataset and kind, datasets, bad records and lengths."""
    numbers = count(1)
    for title, samples in grouped(prepared):
        _print(console, title, "bold")
        console.print()
        for first in samples:
            show_sample(next(numbers), first, tokenizer, console)
    for report in prepared.reports:
        show_report(report, console)
    histogram(prepared.lengths(BINS), console)


def show_sample(number: int, first: FirstSample, tokenizer: ChatTokenizer, console: Console) -> None:
    """Print the messages as read, and the text the model sees with the labels marked."""
    _print(console, f"Sample {number}: {first.place}, {facts(first)}", "bold")
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(justify="right", style="cyan")
    grid.add_column(overflow="fold")
    for message in first.messages:
        grid.add_row(Text(message.role), Text(visible(message.content)))
    if first.messages:
        console.print(Padding(grid, (0, 0, 0, 2)))
    coloured = console.color_system is not None
    _print(console, f"  What the model sees, labels {'in green' if coloured else 'between « and »'}:", "dim")
    if coloured:
        console.print(as_text(first.sample, tokenizer), soft_wrap=True)
    else:
        console.print(Text(visible(as_plain(first.sample, tokenizer))), soft_wrap=True)
    console.print()


def show_report(report: DatasetReport, console: Console) -> None:
    """Print the counts of one dataset in a sentence, without zeros."""
    _print(console, report.name, "bold")
    for sentence in report.sentences():
        _print(console, f"  {sentence}")
    if report.bad:
        _print(console, f"  {report.bad:,} bad, which maxBadRecords allows:", "red")
    for bad in report.bad_records:
        _print(console, f"    {bad}", "red")
    if report.bad > len(report.bad_records):
        _print(console, f"    … and {report.bad - len(report.bad_records):,} more", "red")


def histogram(lengths: Sequence[dict[str, int]], console: Console) -> None:
    """Print the samples by number of tokens."""
    most = max((bin_["count"] for bin_ in lengths), default=0)
    if not most:
        return
    _print(console, "Samples by number of tokens", "bold")
    wide = len(f"{lengths[-1]['high']}")
    for bin_ in lengths:
        bar = "█" * round(bin_["count"] / most * BAR_WIDTH) or ("▏" if bin_["count"] else "")
        number = f" {bin_['count']:,}" if bin_["count"] else ""
        low, high = f"{bin_['low']:>{wide}}", f"{bin_['high']:<{wide}}"
        _print(console, f"  {low}–{high}  {bar}{number}")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(visible(text), style=style), soft_wrap=True)
