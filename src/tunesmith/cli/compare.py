"""`compare`: outputs beside each other."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import WorkDirectory, need, say


class Shape(StrEnum):
    """What `compare` prints."""

    TABLE = "table"
    JSON = "json"


def compare(
    outputs: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT...", help="Outputs: s3://…, file://… or folders; or manifests, which name theirs."
        ),
    ],
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="The page to write.")] = Path(
        "comparison.html"
    ),
    shape: Annotated[Shape, typer.Option("--output", "-o", help="table, or json and no page.")] = Shape.TABLE,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Compare outputs of one kind: what differs in settings and data, curves, evaluations, replies, cost.

    Differences are to the first output. Outputs may be unfinished.

    [dim]tunesmith compare s3://models/profile-only s3://models/context-only
    tunesmith compare ablations.yaml --html ablations.html
    tunesmith compare out/a out/b -o json[/dim]
    """
    need("boto3", "data", "tunesmith compare")
    from tunesmith.local.compare import compare as run
    from tunesmith.local.console import Console

    raise typer.Exit(run(outputs, html, work_dir, shape is Shape.JSON, Console(highlight=False), say))
