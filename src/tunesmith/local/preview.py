"""`tunesmith preview`: the very preparation that training does, shown instead of trained on. No torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.prepare import DatasetReport, Prepared, prepare
from tunesmith.engines.load import fetch_model, vocabulary_size
from tunesmith.errors import DataError
from tunesmith.local.storage import credentials, embedded_if_needed, s3_uris
from tunesmith.local.workdir import WorkDir
from tunesmith.names import Kind
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.show import as_text

BAR_WIDTH = 40


def preview_jobs(jobs: Sequence[Job], count: int, work_dir: Path, console: Console) -> int:
    """Show every FineTuneJob of the files. Returns the exit code: 2 when data is bad."""
    code = 0
    for job in jobs:
        if job.kind != Kind.FINE_TUNE:
            console.print(Text(f"{job.subject}: this version previews FineTuneJobs only.", style="yellow"))
            continue
        console.rule(Text(job.subject))
        endpoint = job.spec.storage.endpoint_url
        with embedded_if_needed(s3_uris(job), endpoint, WorkDir(work_dir).s3):
            code = max(code, _preview(job, jobs, count, console))
    return code


def _preview(job: Job, jobs: Sequence[Job], count: int, console: Console) -> int:
    import os

    os.environ.update(credentials(job))
    spec = resolve(job, output_uris(list(jobs))).spec
    assert isinstance(spec, FineTuneSpec)
    storage = spec.storage
    options = StorageOptions(storage.endpoint_url, storage.region, storage.checksums)
    with tempfile.TemporaryDirectory(prefix="tunesmith-preview-") as temp:
        folder = Path(temp)
        model = fetch_model(spec.model, spec.hub, options, folder / "model", tokenizer_only=True)
        tokenizer = ChatTokenizer.load(model, trust_remote_code=spec.model.trust_remote_code)
        with console.status("reading") as status:
            try:
                prepared = prepare(
                    spec,
                    tokenizer,
                    options,
                    folder / "samples",
                    lambda name, records: status.update(f"{name}: {records:,} records"),
                    first=count,
                    vocab_size=vocabulary_size(model),
                )
            except DataError as error:
                console.print(Text(error.message, style="red"), soft_wrap=True)
                return 2
        show(prepared, tokenizer, console)
    return 0


def show(prepared: Prepared, tokenizer: ChatTokenizer, console: Console) -> None:
    """First samples, datasets, bad records, lengths."""
    for number, first in enumerate(prepared.first, 1):
        title = f"sample {number}: {first.place}, {len(first.sample.ids)} tokens"
        console.print(Text(title, style="bold"))
        for message in first.messages:
            console.print(Text(f"{message.role:>10}  {message.content}", style="cyan"))
        console.print(Text("  as tokens, labels in green:", style="dim"))
        console.print(as_text(first.sample, tokenizer), soft_wrap=True)
    console.print(dataset_table(prepared.reports))
    for report in prepared.reports:
        for bad in report.bad_records:
            console.print(Text(f"bad record: {bad}", style="red"), soft_wrap=True)
    histogram(prepared.lengths(), console)


def dataset_table(reports: Sequence[DatasetReport]) -> RichTable:
    """What became of each dataset."""
    table = RichTable(title="Datasets")
    table.add_column("dataset", overflow="fold")
    for name in ("records", "samples", "tokens", "labels", "bad", "skipped", "context cut"):
        table.add_column(name, justify="right")
    for report in reports:
        numbers = (
            report.records, report.samples, report.tokens, report.label_tokens,
            report.bad, report.skipped, report.cut,
        )  # fmt: skip
        table.add_row(Text(report.name), *(f"{number:,}" for number in numbers))
    return table


def histogram(lengths: Sequence[dict[str, int]], console: Console) -> None:
    """Samples by number of tokens."""
    most = max((bin_["count"] for bin_ in lengths), default=0)
    if not most:
        return
    console.print(Text("Tokens of a sample", style="bold"))
    for bin_ in lengths:
        bar = "█" * round(bin_["count"] / most * BAR_WIDTH) or ("▏" if bin_["count"] else "")
        console.print(Text(f"{bin_['low']:>7}–{bin_['high']:<7} {bar} {bin_['count']}"))
