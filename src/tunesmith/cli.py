"""The `tunesmith` command. Each command reads its arguments, calls one function and exits with its code.

Exit codes: 0 done, 1 a job failed, 2 the user's mistake. Heavy imports are inside the commands.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith import __version__
from tunesmith.api.rules import MACHINE
from tunesmith.errors import ManifestError, PermanentError, Problem, TunesmithError, UsageError
from tunesmith.names import ENV_RULES
from tunesmith.text import visible

if TYPE_CHECKING:
    from tunesmith.api.manifest import Job

app = typer.Typer(
    name="tunesmith",
    help="LLM post-training as Kubernetes resources, and the same manifest on this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Tool(StrEnum):
    """Tools whose configurations can be converted."""

    TRL = "trl"
    LLAMA_FACTORY = "llamafactory"
    AXOLOTL = "axolotl"


Files = Annotated[
    list[Path],
    typer.Option(
        "--file", "-f", help="A manifest, a folder of them, or - for standard input; may be repeated."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Replace a field below spec for this call; may be repeated."
    ),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(
        "--seed", metavar="S3URI=PATH", help="Upload a file or folder to S3 first; may be repeated."
    ),
]
WorkDirectory = Annotated[
    Path, typer.Option("--work-dir", help="Embedded S3, logs and results; the next run reuses them.")
]


INTERRUPTED = 130
# Errors of the system that mean an invalid path on the command line; others may work later.
_WRONG_PATH = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def _say(text: str) -> None:
    typer.echo(visible(text), err=True)


@app.command()
def validate(files: Files, overrides: Sets = None) -> None:
    """Check manifests: one line per problem, with the field and its valid values.

    [dim]tunesmith validate -f job.yaml
    tunesmith validate -f experiments/[/dim]
    """
    from tunesmith.api.checkpoints import checkpoint_warnings
    from tunesmith.api.references import missing_problems
    from tunesmith.local.manifests import load_jobs

    jobs = load_jobs(files, overrides)
    for problem in missing_problems(jobs) + checkpoint_warnings(jobs):
        _say(f"warning: {problem}")
    for job in jobs:
        typer.echo(visible(f"{job.source}: {job.subject} is valid"))


@app.command()
def render(files: Files, overrides: Sets = None, attempt: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Print the ConfigMap and PyTorchJob of a manifest, as YAML.

    [dim]tunesmith render -f job.yaml | less[/dim]
    """
    from tunesmith.local.manifests import load_jobs
    from tunesmith.plan.build import build, output_uris
    from tunesmith.plan.show import as_yaml

    jobs = load_jobs(files, overrides)
    plans = [build(job, output_uris(jobs), attempt=attempt) for job in jobs]
    typer.echo(as_yaml([item for plan in plans for item in (plan.config_map, plan.pytorch_job)]), nl=False)


@app.command()
def run(
    files: Files,
    work_dir: WorkDirectory = Path(".tunesmith"),
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Run jobs that do not depend on one that failed.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, max=64, help="Processes per job, instead of one per GPU."),
    ] = None,
    seeds: Seeds = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Retry failed dialogues: run.retryFailed."),
    ] = False,
    allowed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-python",
            metavar="MODULE",
            help="Allow verifiers to call functions of this module and its submodules; may be repeated.",
        ),
    ] = None,
    overrides: Sets = None,
) -> None:
    """Run manifests on this machine. After a stop, the same command resumes from the last checkpoint.

    [dim]tunesmith run -f job.yaml
    tunesmith run -f job.yaml --seed s3://datasets/train.jsonl=data/train.jsonl
    tunesmith run -f job.yaml --set model.uri=./my-model --set training.maxSteps=10[/dim]
    """
    from tunesmith.api.checkpoints import checkpoint_warnings
    from tunesmith.api.references import missing_problems
    from tunesmith.jobs.unsupported import unsupported
    from tunesmith.local.manifests import load_jobs

    again = ["run.retryFailed=true"] if retry_failed else []
    jobs = load_jobs(files, [*(overrides or []), *again])
    problems = missing_problems(jobs)
    for job in jobs:
        reason = unsupported(job.kind, job.spec)
        if reason:
            problems.append(Problem(job.source, job.document, job.subject, "", reason))
    if problems:
        raise ManifestError(problems)
    for problem in checkpoint_warnings(jobs):
        _say(f"warning: {problem}")
    _need("torch", "local", "tunesmith run")
    os.environ[ENV_RULES] = replace(MACHINE, python_modules=tuple(allowed or ())).text()
    _refuse_unready(jobs)
    from tunesmith.local.console import Console
    from tunesmith.local.run import LocalRun, RunOptions
    from tunesmith.local.storage import parse_seed

    parsed = [parse_seed(seed) for seed in seeds or []]

    # SIGTERM and a closed terminal act like Ctrl-C: save and stop. nohup stays nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        code = LocalRun(jobs, RunOptions(work_dir, keep_going, processes, parsed), Console()).run()
    except KeyboardInterrupt:
        _say("Stopped. Run the same command again to resume.")
        code = INTERRUPTED
    raise typer.Exit(code)


@app.command()
def preview(
    files: Files,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, help="Samples shown per dataset and kind.")
    ] = 3,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with plots.")
    ] = None,
    work_dir: WorkDirectory = Path(".tunesmith"),
    seeds: Seeds = None,
    overrides: Sets = None,
) -> None:
    """Show what a FineTuneJob would train on: messages, labels, lengths, bad records. Trains nothing.

    [dim]tunesmith preview -f job.yaml
    tunesmith preview -f job.yaml --seed s3://datasets/train.jsonl=data/train.jsonl
    tunesmith preview -f job.yaml --html data.html
    tunesmith preview -f job.yaml -n 10 --set model.uri=./my-model[/dim]
    """
    _need("transformers", "data", "tunesmith preview")
    _quiet()
    from tunesmith.jobs.unsupported import unsupported
    from tunesmith.local.console import Console
    from tunesmith.local.manifests import load_jobs
    from tunesmith.local.preview import preview_jobs
    from tunesmith.local.storage import parse_seed

    jobs = load_jobs(files, overrides)
    parsed = [parse_seed(seed) for seed in seeds or []]
    code = preview_jobs(jobs, count, work_dir, Console(highlight=False), html, parsed)
    if code == 0 and not any(unsupported(job.kind, job.spec) for job in jobs):
        _say(f"To train on this: {_again('run', files, work_dir, seeds, overrides)}")
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


@app.command()
def chat(
    model: Annotated[
        str, typer.Option("--model", help="A model or adapter: a path, s3://…, file://… or hf://…")
    ],
    base: Annotated[str | None, typer.Option("--base", help="Base model of an adapter.")] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="A preset saved with the model, which training used; or none."
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="FILE", help="One record, for presets of users and of cases."),
    ] = None,
    articles: Annotated[
        str | None,
        typer.Option("--articles", metavar="FILE", help="Articles for cases, instead of those of training."),
    ] = None,
    changed_articles: Annotated[
        str | None,
        typer.Option(
            "--changed-articles", metavar="FILE", help="Changed articles for cases, if the law was changed."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="precise, balanced or creative: temperature and the like.")
    ] = "balanced",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 512,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="A string that ends a reply; may be repeated.")
    ] = None,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Chat with a model, using its training prompt. An empty line or Ctrl-D quits, /reset starts over.

    [dim]tunesmith chat --model .tunesmith/jobs/default/quickstart-ftj/output/final_model --base .demo/model
    tunesmith chat --model s3://models/quickstart/final_model
    tunesmith chat --model s3://models/character/final_model --as settings[/dim]
    """
    _need("torch", "train", "tunesmith chat")
    _quiet()
    from tunesmith.local.chat import ChatOptions, talk
    from tunesmith.local.console import Console

    options = ChatOptions(
        model,
        base,
        system,
        as_,
        record,
        articles,
        changed_articles,
        preset=preset,
        max_new_tokens=max_new_tokens,
        stop=stop or [],
        work_dir=work_dir,
    )
    raise typer.Exit(talk(options, Console(highlight=False)))


data = typer.Typer(help="Inspect data before training on it, and convert it.", no_args_is_help=True)
app.add_typer(data, name="data")

DataPath = Annotated[
    str, typer.Argument(metavar="PATH", help="A file or folder: a path, s3://… or file:///…")
]
CharacterName = Annotated[str | None, typer.Option("--name", help="The character, for the format character.")]
DataSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the format, as in manifests; repeatable."),
]
TextEncoding = Annotated[
    str,
    typer.Option("--encoding", help="Encoding of files that are not UTF-8, such as gb18030 or shift_jis."),
]
_DATA_FORMATS = "chat, instruction, text, userSimulation, character, sampled, legalJudgement or seeds"


@data.command("check")
def data_check(
    path: DataPath,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help=f"{_DATA_FORMATS}; detected if absent.")
    ] = None,
    name: CharacterName = None,
    options: DataSets = None,
    encoding: TextEncoding = "utf-8",
    model: Annotated[
        str | None, typer.Option("--model", metavar="DIR", help="Count tokens, by this model's tokenizer.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            min=8,
            help="Maximum tokens of a sample; if absent, the model's maximum positions, at most 4096.",
        ),
    ] = None,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Read all data and report records, bad records with their place, and what is left out and why.

    [dim]tunesmith data check train.jsonl
    tunesmith data check lines/ --format character --name Paimon
    tunesmith data check train.jsonl --model ./my-model --max-length 2048[/dim]
    """
    _need("boto3", "data", "tunesmith data check")
    _quiet()
    if model is not None:
        _need("transformers", "data", "tunesmith data check --model")
    elif max_length is not None:
        raise UsageError("--max-length needs --model, whose tokenizer counts the tokens.")
    from tunesmith.local.console import Console
    from tunesmith.local.data import ReadOptions
    from tunesmith.local.data_check import check

    asked = ReadOptions(format_, name, options or [], encoding)
    raise typer.Exit(check(path, asked, model, max_length, work_dir, Console(highlight=False)))


@data.command("convert")
def data_convert(
    path: Annotated[str, typer.Argument(metavar="IN", help="A file or folder: a path, s3://… or file:///…")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A .jsonl or .json file, also .gz or .zst.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="openai, sharegpt or alpaca.")],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="auto, chat, instruction, userSimulation, character or sampled.",
        ),
    ] = "auto",
    name: CharacterName = None,
    options: DataSets = None,
    encoding: TextEncoding = "utf-8",
    max_bad: Annotated[
        int, typer.Option("--max-bad-records", min=0, help="Bad records that may be left out.")
    ] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Write conversations as OpenAI messages, ShareGPT or Alpaca; what the format cannot hold is an error.

    [dim]tunesmith data convert alpaca.json train.jsonl --to openai
    tunesmith data convert trees.jsonl.gz train.json --from chat --to sharegpt --max-bad-records 5[/dim]
    """
    _need("boto3", "data", "tunesmith data convert")
    from tunesmith.local.console import Console
    from tunesmith.local.data import ReadOptions
    from tunesmith.local.data_convert import Into, convert

    asked = ReadOptions(None if from_ == "auto" else from_, name, options or [], encoding)
    into = Into(out, to, max_bad, force)
    raise typer.Exit(convert(path, asked, into, work_dir, Console(highlight=False)))


@app.command("convert-config")
def convert_config(
    path: Annotated[Path, typer.Argument(help="A YAML or JSON configuration, or a script with the command.")],
    tool: Annotated[
        Tool | None,
        typer.Option("--from", help="The tool that the configuration is for; detected if absent."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the job.")] = "converted",
) -> None:
    """Print a FineTuneJob equivalent to a configuration of TRL, LLaMA-Factory or Axolotl.

    Settings without a field are listed in comments above the manifest.

    [dim]tunesmith convert-config axolotl.yml --name first-job > job.yaml
    tunesmith convert-config train.sh --from trl > job.yaml[/dim]
    """
    from tunesmith.api.manifest import parse_document
    from tunesmith.local.convert_config import convert, read_settings, tool_of

    settings = read_settings(path.read_text("utf-8"), str(path))
    made = convert(settings, tool.value if tool else tool_of(settings), name)
    typer.echo(made.text(path.name), nl=False)
    parse_document(made.document, str(path), 1)


@app.command()
def crds(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("crds"),
) -> None:
    """Write the three CustomResourceDefinitions.

    [dim]tunesmith crds --output crds/ && kubectl apply --server-side -f crds/[/dim]
    """
    from tunesmith.api.crd import write_crds

    for path in write_crds(output):
        typer.echo(path)


@app.command()
def schemas(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("schemas"),
) -> None:
    """Write JSON Schemas by which editors complete and check manifests.

    [dim]tunesmith schemas --output schemas/[/dim]
    """
    from tunesmith.api.json_schema import write_schemas

    for path in write_schemas(output):
        typer.echo(path)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"tunesmith {__version__}")


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


def _need(module: str, extra: str, command: str) -> None:
    """Raise UsageError that names the extra if a package is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"`{command}` needs more packages: pip install 'tunesmith[{extra}]'")


def _quiet() -> None:
    """Keep other libraries' warnings off the terminal."""
    from tunesmith.local.quiet import quiet

    quiet()


def main() -> None:
    """Run the console script: Tunesmith's errors become one line (or one per problem) and an exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except ManifestError as error:
        for problem in error.problems:
            _say(str(problem))
        code = 2
    except TunesmithError as error:
        _say(f"tunesmith: {error.message}")
        code = 2 if isinstance(error, PermanentError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not full:
            raise
        where = os.fsdecode(error.filename) if error.filename else "the disk of --work-dir"
        _say(f"tunesmith: {where}: {error.strerror}.")
        code = 2 if error.errno in _WRONG_PATH else 1
    else:
        return
    sys.exit(code)


if __name__ == "__main__":
    main()
