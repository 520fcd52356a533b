"""`estimate`: what jobs will need, before anything is paid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.compare import Shape
from tunesmith.cli.options import Files, Sets, WorkDirectory, need, quiet_libraries
from tunesmith.cli.run import Seeds


def estimate(
    files: Files,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="CARD", help="The GPU, as H100 or A100-80; all known ones if absent."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", min=1, help="Tokens of the training set or the prompts, instead of reading them."
        ),
    ] = None,
    sample_tokens: Annotated[
        int | None,
        typer.Option("--sample-tokens", min=1, help="Tokens of one sample or prompt, with --tokens."),
    ] = None,
    efficiency: Annotated[
        float | None,
        typer.Option(
            "--efficiency", min=0.01, max=1.0, help="Share of the card's peak that training reaches."
        ),
    ] = None,
    output: Annotated[Shape, typer.Option("--output", "-o", help="A table, or JSON.")] = Shape.TABLE,
    work_dir: WorkDirectory = Path(".tunesmith"),
    seeds: Seeds = None,
    overrides: Sets = None,
) -> None:
    """Show what jobs will need: memory of a GPU, disk, steps, hours, calls and dollars. Reads no weights.

    [dim]tunesmith estimate -f job.yaml
    tunesmith estimate -f job.yaml --gpu H100 --set resources.gpusPerNode=4
    tunesmith estimate -f job.yaml --gpu L40S --tokens 20000000 --sample-tokens 800
    tunesmith estimate -f experiments/ -o json[/dim]
    """
    from tunesmith.engines.cards import find_card

    card = None if gpu is None else find_card(gpu)
    need("transformers", "data", "tunesmith estimate")
    quiet_libraries()
    from rich.console import Console as Plain

    from tunesmith.local.console import Console
    from tunesmith.local.estimate.jobs import estimate_jobs
    from tunesmith.local.estimate.options import EstimateOptions
    from tunesmith.local.manifests import load_jobs
    from tunesmith.local.storage import parse_seed

    as_json = output is Shape.JSON
    jobs = load_jobs(files, overrides)
    options = EstimateOptions(card, tokens, sample_tokens, efficiency)
    console = Plain(stderr=True, highlight=False) if as_json else Console(highlight=False)
    parsed = [parse_seed(seed) for seed in seeds or []]
    raise typer.Exit(estimate_jobs(jobs, options, work_dir, console, as_json=as_json, seeds=parsed))
