"""The `tunesmith` command. Each command reads its arguments, calls one function and exits with its code.

Exit codes: 0 done, 1 a job failed, 2 the user's mistake. Heavy imports are inside the commands.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from tunesmith import __version__
from tunesmith.cli.chat import chat
from tunesmith.cli.compare import compare
from tunesmith.cli.data import data_check, data_convert
from tunesmith.cli.estimate import estimate
from tunesmith.cli.export import export
from tunesmith.cli.local_jobs import list_jobs, logs, status
from tunesmith.cli.manifests import convert_config, crds, render, schemas, validate
from tunesmith.cli.options import say
from tunesmith.cli.run import preview, run
from tunesmith.errors import ManifestError, PermanentError, TunesmithError

# Errors of the system that mean an invalid path on the command line; others may work later.
_WRONG_PATH = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


def version() -> None:
    """Print the version."""
    typer.echo(f"tunesmith {__version__}")


app = typer.Typer(
    name="tunesmith",
    help="LLM post-training as Kubernetes resources, and the same manifest on this machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that go before a command."""


for command in (
    validate,
    render,
    run,
    preview,
    estimate,
    logs,
    status,
    compare,
    chat,
    export,
    convert_config,
    crds,
    schemas,
    version,
):
    app.command()(command)
app.command("list")(list_jobs)
data = typer.Typer(help="Inspect data before training on it, and convert it.", no_args_is_help=True)
data.command("check")(data_check)
data.command("convert")(data_convert)
app.add_typer(data, name="data")


def main() -> None:
    """Run the console script: Tunesmith's errors become one line (or one per problem) and an exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except ManifestError as error:
        for problem in error.problems:
            say(str(problem))
        code = 2
    except TunesmithError as error:
        say(f"tunesmith: {error.message}")
        code = 2 if isinstance(error, PermanentError) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not full:
            raise
        where = os.fsdecode(error.filename) if error.filename else "the disk of --work-dir"
        say(f"tunesmith: {where}: {error.strerror}.")
        code = 2 if error.errno in _WRONG_PATH else 1
    else:
        return
    sys.exit(code)
