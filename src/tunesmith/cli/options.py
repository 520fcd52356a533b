"""What several commands take and do alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.errors import UsageError
from tunesmith.text import visible

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
WorkDirectory = Annotated[
    Path, typer.Option("--work-dir", help="Embedded S3, logs and results; the next run reuses them.")
]


def say(text: str) -> None:
    """Print to standard error."""
    typer.echo(visible(text), err=True)


def need(module: str, extra: str, command: str) -> None:
    """Raise UsageError that names the extra if a package is not installed."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"`{command}` needs more packages: pip install 'tunesmith[{extra}]'")


def quiet_libraries() -> None:
    """Keep other libraries' warnings off the terminal."""
    from tunesmith.local.quiet import quiet

    quiet()
