"""The estimates of all jobs of some files, one after the other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.errors import PermanentError, TunesmithError
from tunesmith.local.estimate.dialogues import estimate_dialogues
from tunesmith.local.estimate.options import EstimateOptions, Values
from tunesmith.local.estimate.sampling import estimate_sampling
from tunesmith.local.estimate.show import show_estimate
from tunesmith.local.estimate.training import estimate_training
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.local.preview.console import say
from tunesmith.local.storage import SeedUpload, run_storage, variables
from tunesmith.local.workdir import WorkDir
from tunesmith.plan.build import output_uris
from tunesmith.plan.run import resolve


def estimate_jobs(
    jobs: Sequence[Job],
    options: EstimateOptions,
    work_dir: Path,
    console: Console,
    *,
    as_json: bool = False,
    seeds: Sequence[SeedUpload] = (),
) -> int:
    """Show what each job of the files will need, or print it as a list in JSON. `console` shows progress too.

    Puts `seeds` into S3 first. Returns the worst of all exit codes.
    """
    code, found = 0, list[Values]()
    with run_storage(jobs, seeds, WorkDir(work_dir).s3) as storage:
        storage.put(seeds)
        for job in jobs:
            try:
                with variables(storage.environment(job)):
                    values = _estimate(job, jobs, options, WorkDir(work_dir).cache, console)
            except TunesmithError as error:
                say(console, f"{job.subject}: {error.message}", "red")
                code = max(code, 2 if isinstance(error, PermanentError) else 1)
                continue
            found.append({"kind": job.kind, "name": job.name, **values})
            if not as_json:
                console.rule(Text(job.subject))
                show_estimate(console, values)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    return code


def _estimate(
    job: Job, jobs: Sequence[Job], options: EstimateOptions, cache: Path, console: Console
) -> Values:
    spec = resolve(job, output_uris(jobs)).spec
    with tempfile.TemporaryDirectory(prefix="tunesmith-estimate-") as temp:
        asked = PreviewRequest(job, spec, 1, cache, Path(temp), None, console)
        match spec:
            case RejectionSampleSpec():
                return estimate_sampling(asked, spec, jobs, options)
            case DialogueGenSpec():
                return estimate_dialogues(asked, spec)
            case FineTuneSpec() if not evaluate_only(spec):
                return estimate_training(asked, spec, jobs, options)
    return {"notes": ["It trains nothing; `tunesmith preview` shows what its evaluations will ask."]}
