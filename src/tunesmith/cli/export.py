"""`export`: other forms of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import WorkDirectory, need, quiet_libraries

Quantization = Annotated[
    str, typer.Option("--quantization", help="F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M or Q4_0, for gguf.")
]
RepositoryId = Annotated[
    str | None, typer.Option("--repo-id", metavar="ORGANISATION/NAME", help="Repository, for hub.")
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="PLACE", help="A folder, s3://… or file://… for the files.")
]


def export(
    model: Annotated[
        str, typer.Option("--model", help="A model or adapter: a path, s3://…, file://… or hf://…")
    ],
    to: Annotated[list[str], typer.Option("--to", help="merged, gguf or hub; may be repeated.")],
    output: Output = None,
    base: Annotated[str | None, typer.Option("--base", help="Base model of an adapter.")] = None,
    quantization: Quantization = "Q8_0",
    repo_id: RepositoryId = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name in the file's name and in cards.")] = None,
    work_dir: WorkDirectory = Path(".tunesmith"),
) -> None:
    """Merge a model's adapter, convert it to GGUF, push it to the hub. Each form is proved before it is kept.

    [dim]tunesmith export --model s3://models/quickstart/final_model --to merged --output s3://models/merged
    tunesmith export --model out/final_model --to gguf --quantization Q4_K_M --output out/gguf
    HF_TOKEN=hf_… tunesmith export --model out/final_model --to merged --to hub --repo-id me/model[/dim]
    """
    need("torch", "train", "tunesmith export")
    if any("gguf" in each for each in to):
        need("xllamacpp", "gguf", "tunesmith export --to gguf")
        need("gguf", "gguf", "tunesmith export --to gguf")
    quiet_libraries()
    from tunesmith.local.console import Console
    from tunesmith.local.export import ExportOptions, export_model

    options = ExportOptions(model, to, base, quantization, repo_id, not public, output, name, work_dir)
    raise typer.Exit(export_model(options, Console(highlight=False)))
