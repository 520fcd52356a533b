"""`tunesmith chat`: talk to a model with the prompt it was trained on, the reply shown as it is made."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.api.generation import PreviewGeneration
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.generate import reply
from tunesmith.engines.load import (
    ADAPTER_CONFIG,
    fetch_model,
    is_adapter,
    load_adapter,
    load_model,
    resolve_dtype,
)
from tunesmith.errors import ModelError, UsageError
from tunesmith.local.overrides import as_uri
from tunesmith.local.storage import embedded_if_needed
from tunesmith.local.workdir import WorkDir
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message

PRESETS: dict[str, dict[str, float]] = {
    "precise": {"temperature": 0.0},
    "balanced": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.05},
    "creative": {"temperature": 1.0, "top_p": 0.95, "repetition_penalty": 1.1},
}


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The command's arguments."""

    model: str
    base: str | None
    system: str | None
    preset: str
    max_new_tokens: int
    stop: list[str]
    work_dir: Path


def generation(options: ChatOptions) -> PreviewGeneration:
    """The preset as settings. Raises UsageError naming the presets."""
    if options.preset not in PRESETS:
        raise UsageError(f"--preset {options.preset}: there are {', '.join(PRESETS)}.")
    return PreviewGeneration(
        max_new_tokens=options.max_new_tokens, stop_tokens=options.stop, **PRESETS[options.preset]
    )


def _fetch(text: str, folder: Path, what: str) -> Path:
    from pydantic import ValidationError

    try:
        source = ModelSource(uri=as_uri(text))
    except ValidationError as error:
        raise UsageError(f"--{what} {text}: {error.errors()[0]['msg']}") from None
    return fetch_model(source, HubSpec(), StorageOptions(), folder)


def _load(options: ChatOptions, folder: Path) -> tuple[Any, ChatTokenizer]:
    """Model and tokenizer; for an adapter, the base it names unless --base names another."""
    import torch

    model_folder = _fetch(options.model, folder / "model", "model")
    base_folder = model_folder
    if is_adapter(model_folder):
        named = json.loads((model_folder / ADAPTER_CONFIG).read_text("utf-8"))["base_model_name_or_path"]
        base = options.base or (named if "://" in named or named.startswith("/") else f"hf://{named}")
        base_folder = _fetch(base, folder / "base", "base")
    elif options.base:
        raise UsageError(f"--base is for adapters; {options.model} is a whole model.")
    if not (base_folder / "config.json").is_file():
        raise ModelError(f"{options.base or options.model} holds no model: config.json is missing.")
    model = load_model(base_folder, dtype=resolve_dtype(base_folder, "auto"))
    if base_folder != model_folder:
        model = load_adapter(model, model_folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    has_template = any(
        (model_folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
    )
    tokenizer = ChatTokenizer.load(model_folder if has_template else base_folder)
    return model.to(device).eval(), tokenizer


def talk(options: ChatOptions) -> int:
    """The conversation, until an empty line or the end of input. Returns the exit code."""
    console = Console(highlight=False)
    settings = generation(options)
    uris = [options.model, options.base or ""]
    with (
        tempfile.TemporaryDirectory(prefix="tunesmith-chat-") as temp,
        embedded_if_needed(uris, None, WorkDir(options.work_dir).s3),
    ):
        with console.status("loading the model"):
            model, tokenizer = _load(options, Path(temp))
        return _converse(console, model, tokenizer, settings, options.system)


def _converse(
    console: Console, model: Any, tokenizer: ChatTokenizer, settings: PreviewGeneration, system: str | None
) -> int:
    opening = [Message("system", system)] if system else []
    messages = list(opening)
    turn = 0
    while True:
        try:
            text = console.input("[bold cyan]you>[/bold cyan] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return 0
        if not text:
            return 0
        if text == "/reset":
            messages = list(opening)
            console.print("[dim]a new conversation[/dim]")
            continue
        messages.append(Message("user", text))
        turn += 1
        answer = _answer(console, model, tokenizer, messages, settings, turn)
        messages.append(Message("assistant", answer))


def _answer(
    console: Console,
    model: Any,
    tokenizer: ChatTokenizer,
    messages: list[Message],
    settings: PreviewGeneration,
    turn: int,
) -> str:
    console.print("[bold green]model>[/bold green] ", end="")
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        console.print(Text(piece), end="", soft_wrap=True)

    try:
        answer = reply(model, tokenizer, messages, settings, seed=turn, on_text=show)
    except KeyboardInterrupt:
        answer = "".join(pieces)
    console.print()
    return answer
