"""The previews of all jobs of some files, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.api.references import references
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.errors import PermanentError, StoragePermanentError, TunesmithError
from tunesmith.local.preview.asked import PreviewRequest, TrainingNeeds
from tunesmith.local.preview.console import say
from tunesmith.local.preview.dialogues import preview_dialogues
from tunesmith.local.preview.prompts import preview_evaluations, preview_prompts
from tunesmith.local.preview.training import preview_training
from tunesmith.local.storage import SeedUpload, run_storage, variables
from tunesmith.local.workdir import WorkDir
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve


def preview_jobs(
    jobs: Sequence[Job],
    first: int,
    work_dir: Path,
    console: Console,
    html: Path | None = None,
    seeds: Sequence[SeedUpload] = (),
    needs: TrainingNeeds | None = None,
) -> int:
    """Show every job of the files, also as a page if `html` names a file; put `seeds` into S3 first.

    `needs` returns what training will need, in sentences. Of several jobs each has its page beside it, named
    after the job. Returns the worst of all exit codes.
    """
    wanted = [job for job in jobs if _has_data(job)]
    for job in jobs:
        if job not in wanted:
            say(console, f"{job.subject}: it trains nothing and has no evaluation", "yellow")
    code = 0 if wanted else 2
    with run_storage(wanted, seeds, WorkDir(work_dir).s3) as storage:
        storage.put(seeds)
        for job in wanted:
            console.rule(Text(job.subject))
            page = _page(html, job, alone=len(wanted) == 1) if html else None
            try:
                with variables(storage.environment(job)):
                    _preview(job, jobs, first, WorkDir(work_dir).cache, page, console, needs)
            except StoragePermanentError as error:
                code = max(code, _failed(console, error))
                _hint(console, job, embedded=job.key in storage.embedded)
            except TunesmithError as error:
                code = max(code, _failed(console, error))
    return code


def _has_data(job: Job) -> bool:
    spec = job.spec
    return not isinstance(spec, FineTuneSpec) or not evaluate_only(spec) or bool(spec.evaluation)


def _page(html: Path, job: Job, *, alone: bool) -> Path:
    return html if alone else html.with_stem(f"{html.stem}-{job.name}")


def _failed(console: Console, error: TunesmithError) -> int:
    say(console, error.message, "red")
    return 2 if isinstance(error, PermanentError) else 1


def _hint(console: Console, job: Job, *, embedded: bool) -> None:
    """Print what to do about an address without data."""
    names = ", ".join(f"{ref.target.kind} {ref.target.name}" for ref in references(job))
    if names:
        say(console, f"It reads the output of {names}, which must have run before.", "dim")
    elif embedded:
        say(
            console,
            "s3:// is the embedded S3, with the outputs of jobs and the files of `--seed S3URI=PATH`; "
            "--set FIELD=PATH uses a file or folder instead, such as --set model.uri=PATH.",
            "dim",
        )


def _preview(
    job: Job,
    jobs: Sequence[Job],
    first: int,
    cache: Path,
    page: Path | None,
    console: Console,
    needs: TrainingNeeds | None,
) -> None:
    spec = resolve(job, output_uris(jobs)).spec
    with tempfile.TemporaryDirectory(prefix="tunesmith-preview-") as temp:
        asked = PreviewRequest(job, spec, first, cache, Path(temp), page, console)
        if needs is not None:
            asked = replace(asked, needs=needs)
        match spec:
            case RejectionSampleSpec():
                preview_prompts(asked, spec)
            case DialogueGenSpec():
                preview_dialogues(asked, spec)
            case FineTuneSpec():
                if not evaluate_only(spec):
                    preview_training(asked, spec)
                preview_evaluations(asked, spec)
