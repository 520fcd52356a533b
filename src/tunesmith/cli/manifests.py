"""`validate`, `render`, `crds`, `convert-config`: manifests, and what is made of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import Files, Sets, say
from tunesmith.errors import UsageError
from tunesmith.text import visible

if TYPE_CHECKING:
    from tunesmith.plan.build import PlanSettings


class Tool(StrEnum):
    """Tools whose configurations can be converted."""

    TRL = "trl"
    LLAMA_FACTORY = "llamafactory"
    AXOLOTL = "axolotl"


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
        say(f"warning: {problem}")
    for job in jobs:
        typer.echo(visible(f"{job.source}: {job.subject} is valid"))


class BackendName(StrEnum):
    """Kinds of objects that create a job's pods."""

    PYTORCH_JOB = "pytorchjob"
    TRAIN_JOB = "trainjob"


def render(
    files: Files,
    overrides: Sets = None,
    attempt: Annotated[int, typer.Option(min=1)] = 1,
    backend: Annotated[
        BackendName, typer.Option(help="Kind of object that creates the pods.")
    ] = BackendName.PYTORCH_JOB,
    settings: Annotated[
        Path | None, typer.Option(help="Values of the Helm chart: runtimes, copyLabels and the like.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Runtime of --settings, instead of the manifest's spec.runtime.")
    ] = None,
) -> None:
    """Print the ConfigMap and the PyTorchJob or TrainJob of a manifest, as YAML.

    [dim]tunesmith render -f job.yaml --backend trainjob | less
    tunesmith render -f job.yaml --settings values.yaml --runtime rdma[/dim]
    """
    from tunesmith.local.manifests import load_jobs
    from tunesmith.names import Backend
    from tunesmith.plan.build import build, output_uris
    from tunesmith.plan.show import as_yaml

    kind = Backend[backend.name]
    chosen = [*(overrides or []), *([f"runtime={runtime}"] if runtime else [])]
    jobs, decided = load_jobs(files, chosen), _settings(settings)
    plans = [build(job, output_uris(jobs), attempt=attempt, backend=kind, settings=decided) for job in jobs]
    typer.echo(as_yaml([item for plan in plans for item in (plan.config_map, plan.child)]), nl=False)


def _settings(path: Path | None) -> PlanSettings | None:
    """Return the administrator's settings in a file of values. Raises UsageError that names the value."""
    from tunesmith.api.yaml12 import load_documents
    from tunesmith.plan.administrator import read_values

    if path is None:
        return None
    try:
        documents = load_documents(path.read_bytes(), str(path))
        return read_values(documents[0] if documents else {})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error


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
    from tunesmith.local.convert_config import convert
    from tunesmith.local.tool_reading import read_settings, tool_of

    settings = read_settings(path.read_text("utf-8"), str(path))
    made = convert(settings, tool.value if tool else tool_of(settings), name, str(path))
    typer.echo(made.text(path.name), nl=False)


def crds(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("crds"),
) -> None:
    """Write the three CustomResourceDefinitions.

    [dim]tunesmith crds --output crds/ && kubectl apply --server-side -f crds/[/dim]
    """
    from tunesmith.api.crd import write_crds

    for path in write_crds(output):
        typer.echo(path)


def schemas(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("schemas"),
) -> None:
    """Write JSON Schemas by which editors complete and check manifests.

    [dim]tunesmith schemas --output schemas/[/dim]
    """
    from tunesmith.api.json_schema import write_schemas

    for path in write_schemas(output):
        typer.echo(path)
