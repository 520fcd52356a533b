"""`run` and `preview`: jobs on this machine."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.api.rules import MACHINE
from tunesmith.cli.options import Files, Sets, WorkDirectory, need, quiet_libraries, say
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import ENV_RULES

if TYPE_CHECKING:
    from tunesmith.api.manifest import Job
    from tunesmith.local.run import RunOptions

INTERRUPTED = 130


Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, max=64, help="Processes per job, instead of one per GPU."),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(
        "--seed", metavar="S3URI=PATH", help="Upload a file or folder to S3 first; may be repeated."
    ),
]
PythonModules = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-python",
        metavar="MODULE",
        help="Allow verifiers to call functions of this module and its submodules; may be repeated.",
    ),
]


def run(
    files: Files,
    work_dir: WorkDirectory = Path(".tunesmith"),
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Run jobs that do not depend on one that failed.")
    ] = False,
    processes: Processes = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Open a page that shows what the jobs do, in the browser.")
    ] = False,
    seeds: Seeds = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Retry failed dialogues: run.retryFailed."),
    ] = False,
    allowed: PythonModules = None,
    overrides: Sets = None,
) -> None:
    """Run manifests on this machine. After a stop, the same command resumes from the last checkpoint.

    [dim]tunesmith run -f job.yaml
    tunesmith run -f job.yaml --open
    tunesmith run -f job.yaml --seed s3://datasets/train.jsonl=data/train.jsonl
    tunesmith run -f job.yaml --set model.uri=./my-model --set training.maxSteps=10[/dim]
    """
    jobs = _load(files, [*(overrides or []), *(["run.retryFailed=true"] if retry_failed else [])])
    need("torch", "local", "tunesmith run")
    os.environ[ENV_RULES] = replace(MACHINE, python_modules=tuple(allowed or ())).text()
    _refuse_unready(jobs)
    from tunesmith.local.run import RunOptions
    from tunesmith.local.storage import parse_seed

    options = RunOptions(work_dir, keep_going, processes, [parse_seed(seed) for seed in seeds or []], open_)
    raise typer.Exit(_run(jobs, options))


def _load(files: list[Path], overrides: list[str]) -> list[Job]:
    """Return the jobs, all of which can run here. Raise ManifestError with every reason why one cannot."""
    from tunesmith.api.checkpoints import checkpoint_warnings
    from tunesmith.api.references import missing_problems
    from tunesmith.jobs.unsupported import unsupported
    from tunesmith.local.manifests import load_jobs

    jobs = load_jobs(files, overrides)
    problems = missing_problems(jobs)
    for job in jobs:
        reason = unsupported(job.kind, job.spec)
        if reason:
            problems.append(Problem(job.source, job.document, job.subject, "", reason))
    if problems:
        raise ManifestError(problems)
    for problem in checkpoint_warnings(jobs):
        say(f"warning: {problem}")
    return jobs


def _run(jobs: list[Job], options: RunOptions) -> int:
    """Run the jobs. Return the exit code."""
    from tunesmith.local.console import Console
    from tunesmith.local.run import LocalRun

    # SIGTERM and a closed terminal act like Ctrl-C: save and stop. nohup stays nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return LocalRun(jobs, options, Console()).run()
    except KeyboardInterrupt:
        say("Stopped. Run the same command again to resume.")
        return INTERRUPTED


def preview(
    files: Files,
    count: Annotated[
        int,
        typer.Option(
            "--count",
            "-n",
            min=1,
            help="Samples shown per kind, prompts, requests per role.",
        ),
    ] = 3,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with plots.")
    ] = None,
    work_dir: WorkDirectory = Path(".tunesmith"),
    seeds: Seeds = None,
    overrides: Sets = None,
) -> None:
    """Show what jobs would train on, sample or ask: texts, tokens, lengths, bad records, costs. Runs nothing.

    [dim]tunesmith preview -f job.yaml
    tunesmith preview -f job.yaml --seed s3://datasets/train.jsonl=data/train.jsonl
    tunesmith preview -f job.yaml --html data.html
    tunesmith preview -f job.yaml -n 10 --set model.uri=./my-model[/dim]
    """
    need("transformers", "data", "tunesmith preview")
    quiet_libraries()
    from tunesmith.jobs.unsupported import unsupported
    from tunesmith.local.console import Console
    from tunesmith.local.estimate.preview import training_needs
    from tunesmith.local.manifests import load_jobs
    from tunesmith.local.preview.jobs import preview_jobs
    from tunesmith.local.storage import parse_seed

    jobs = load_jobs(files, overrides)
    parsed = [parse_seed(seed) for seed in seeds or []]
    console = Console(highlight=False)
    code = preview_jobs(jobs, count, work_dir, console, html, parsed, training_needs)
    if code == 0 and not any(unsupported(job.kind, job.spec) for job in jobs):
        say(f"To run this: {_again('run', files, work_dir, seeds, overrides)}")
    raise typer.Exit(code)


def _again(
    command: str, files: list[Path], work_dir: Path, seeds: list[str] | None, overrides: list[str] | None
) -> str:
    """Return another command on the same files, as a user would type it."""
    words = ["tunesmith", command, *(word for path in files for word in ("-f", str(path)))]
    words += [] if work_dir == Path(".tunesmith") else ["--work-dir", str(work_dir)]
    repeated = {"--seed": seeds, "--set": overrides}
    words += [word for option, texts in repeated.items() for text in texts or [] for word in (option, text)]
    return shlex.join(words)


def _refuse_unready(jobs: Sequence[Job]) -> None:
    """Raise ManifestError with everything that any of the jobs lacks here, before the first one starts."""
    from tunesmith.jobs.preflight import problems

    found = [
        Problem(job.source, job.document, job.subject, lack.field and f"spec.{lack.field}", lack.message)
        for job in jobs
        for lack in problems(job.spec)
    ]
    if found:
        raise ManifestError(found)
