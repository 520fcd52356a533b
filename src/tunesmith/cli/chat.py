"""`chat`: talk to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import WorkDirectory, need, quiet_libraries

PresetName = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="A preset saved with the model, which training used; or none."),
]
Articles = Annotated[
    str | None,
    typer.Option("--articles", metavar="FILE", help="Articles for cases, instead of those of training."),
]
ChangedArticles = Annotated[
    str | None,
    typer.Option(
        "--changed-articles", metavar="FILE", help="Changed articles for cases, if the law was changed."
    ),
]


def chat(
    model: Annotated[
        str, typer.Option("--model", help="A model or adapter: a path, s3://…, file://… or hf://…")
    ],
    base: Annotated[str | None, typer.Option("--base", help="Base model of an adapter.")] = None,
    as_: PresetName = None,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="FILE", help="One record, for presets of users and of cases."),
    ] = None,
    articles: Articles = None,
    changed_articles: ChangedArticles = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None,
    tools: Annotated[
        str | None,
        typer.Option("--tools", metavar="FILE", help="A JSON list of tools that the model is shown."),
    ] = None,
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
    tunesmith chat --model s3://models/character/final_model --as settings
    tunesmith chat --model s3://models/agent/final_model --tools tools.json[/dim]
    """
    need("torch", "train", "tunesmith chat")
    quiet_libraries()
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
        tools=tools,
        preset=preset,
        max_new_tokens=max_new_tokens,
        stop=stop or [],
        work_dir=work_dir,
    )
    raise typer.Exit(talk(options, Console(highlight=False)))
