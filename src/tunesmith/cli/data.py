"""`data check` and `data convert`: look at data before training on it, and convert it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import WorkDirectory, need, quiet_libraries
from tunesmith.errors import UsageError

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
    need("boto3", "data", "tunesmith data check")
    quiet_libraries()
    if model is not None:
        need("transformers", "data", "tunesmith data check --model")
    elif max_length is not None:
        raise UsageError("--max-length needs --model, whose tokenizer counts the tokens.")
    from tunesmith.local.console import Console
    from tunesmith.local.data import ReadOptions
    from tunesmith.local.data_check import check

    asked = ReadOptions(format_, name, options or [], encoding)
    raise typer.Exit(check(path, asked, model, max_length, work_dir, Console(highlight=False)))


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
    need("boto3", "data", "tunesmith data convert")
    from tunesmith.local.console import Console
    from tunesmith.local.data import ReadOptions
    from tunesmith.local.data_convert import Into, convert

    asked = ReadOptions(None if from_ == "auto" else from_, name, options or [], encoding)
    into = Into(out, to, max_bad, force)
    raise typer.Exit(convert(path, asked, into, work_dir, Console(highlight=False)))
