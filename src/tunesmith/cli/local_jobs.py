"""`list`, `logs` and `status`: what jobs do, here and on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import WorkDirectory, need
from tunesmith.errors import UsageError

INTERRUPTED = 130
JobName = Annotated[
    str, typer.Argument(metavar="NAME", help="A job's name; NAMESPACE/NAME or NAME-ftj if several have it.")
]


def list_jobs(work_dir: WorkDirectory = Path(".tunesmith")) -> None:
    """List the jobs that were run here: state, progress, output.

    [dim]tunesmith list
    tunesmith list --work-dir /data/experiments/.tunesmith[/dim]
    """
    need("boto3", "data", "tunesmith list")
    from tunesmith.local.console import Console
    from tunesmith.local.local_status import show_list

    raise typer.Exit(show_list(work_dir, Console(highlight=False)))


def logs(
    name: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what is added, until the job ends.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, help="Only the last lines; all of them if absent.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=0, help="The process whose log is meant.")] = 0,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Print the log of a job that was run here.

    [dim]tunesmith logs quickstart
    tunesmith logs quickstart --follow --tail 20
    tunesmith logs quickstart --rank 1[/dim]
    """
    need("boto3", "data", "tunesmith logs")
    from tunesmith.local.local_status import show_log

    try:
        code = show_log(name, work_dir, rank, tail, follow, lambda line: typer.echo(line))
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise typer.Exit(code)


def status(
    name: JobName,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="A namespace of the cluster that your kubeconfig names."),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Open the page of a running job, or the report of a finished one.")
    ] = False,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Say how a job is: one that was run here, or with --namespace one on a cluster.

    [dim]tunesmith status quickstart
    tunesmith status quickstart --open
    tunesmith status -n team-a sft[/dim]
    """
    if namespace is not None:
        if open_:
            raise UsageError("--open is for jobs on this machine; on a cluster: kubectl port-forward.")
        need("kubernetes", "cluster", "tunesmith status --namespace")
        from tunesmith.local.cluster_status import show_cluster_status
        from tunesmith.local.console import Console

        raise typer.Exit(show_cluster_status(namespace, name, Console(highlight=False)))
    need("boto3", "data", "tunesmith status")
    from tunesmith.local.console import Console
    from tunesmith.local.local_status import show_status

    raise typer.Exit(show_status(name, work_dir, open_, Console(highlight=False)))
