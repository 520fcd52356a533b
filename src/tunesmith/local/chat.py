"""`tunesmith chat`: talk to a model with the prompt it was trained on, the reply shown as it is made."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.api.generation import PreviewGeneration
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.tools import tools_of
from tunesmith.data.prompts.presets import joined, read_presets
from tunesmith.data.record import RecordProblem
from tunesmith.engines.adapter import base_source, is_adapter, load_adapter
from tunesmith.engines.files import has_tokenizer
from tunesmith.engines.load import fetch_model, load_model, local_path, model_config, resolve_dtype
from tunesmith.errors import ModelError, UsageError
from tunesmith.local.chat_as import Asking, AsOptions, asking
from tunesmith.local.chat_session import HELP, ChatSession
from tunesmith.local.overrides import absolute
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.text import visible
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
    base: str | None = None
    system: str | None = None
    as_name: str | None = None
    record: str | None = None
    articles: str | None = None
    changed_articles: str | None = None
    tools: str | None = None
    preset: str = "balanced"
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)
    work_dir: Path = Path(".tunesmith")


def generation(options: ChatOptions) -> PreviewGeneration:
    """Return the preset as settings. Raises UsageError naming the presets, or the invalid option."""
    if options.preset not in PRESETS:
        raise UsageError(f"--preset {options.preset}: choose one of {', '.join(PRESETS)}.")
    try:
        return PreviewGeneration(
            max_new_tokens=options.max_new_tokens, stop_tokens=options.stop, **PRESETS[options.preset]
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = "--stop" if str(first["loc"][0]).startswith("stop") else "--max-new-tokens"
        raise UsageError(f"{option}: {first['msg']}.") from None


def source(text: str, named: str) -> ModelSource:
    """Return the model an option names. Raises UsageError."""
    try:
        return ModelSource(uri=absolute(text))
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{named} {text}: {message}.") from None


def base_of(adapter: Path, named: str | None) -> ModelSource:
    """Return the model of --base, else the one that the adapter names. Raises UsageError or ModelError."""
    if named is not None:
        return source(named, "--base")
    try:
        base = base_source(adapter)
    except ModelError as error:
        raise ModelError(f"{error.message.removesuffix('.')}; pass it with --base.") from None
    path = local_path(base.uri or "")
    if path is not None and not path.is_dir():
        raise ModelError(
            f"the adapter's base model {base.uri}: there is no such folder; pass it with --base."
        )
    return base


def _load(options: ChatOptions, folder: Path, stack: ExitStack) -> tuple[Any, ChatTokenizer, Asking, str]:
    """Return model, tokenizer, how to ask, and the tools; for an adapter the base is --base, or its own."""
    import torch

    def fetch(found: ModelSource, place: Path, named: str) -> Path:
        assert found.uri is not None
        stack.enter_context(embedded_for([found.uri], WorkDir(options.work_dir).s3))
        return fetch_model(found, HubSpec(), StorageOptions(), place, named=named)

    model_folder = base_folder = fetch(source(options.model, "--model"), folder / "model", "--model")
    if is_adapter(model_folder):
        named = "--base" if options.base else "the adapter's base model"
        base = base_of(model_folder, options.base)
        base_folder = fetch(base, folder / "base", named)
        if is_adapter(base_folder):
            raise UsageError(f"{named} {base.uri}: this is an adapter, not a whole model.")
    elif options.base:
        raise UsageError(f"--base is for adapters; {options.model} is a whole model.")
    if not model_config(base_folder):
        raise ModelError(f"{base_folder} has no model: config.json is missing.")
    tokenizer = ChatTokenizer.load(model_folder if has_tokenizer(model_folder) else base_folder)
    tools = "" if options.tools is None else read_tools(Path(options.tools))
    tokenizer = tokenizer.given(tools) if tools else tokenizer
    tokenizer.prompt_ids([Message("user", "?")])  # without a chat template it is better to say so now
    presets = joined(read_presets(model_folder), read_presets(base_folder))
    wanted = AsOptions(
        options.as_name, options.record, options.articles, options.changed_articles, options.system
    )
    how = asking(presets, wanted, options.work_dir)
    model = load_model(base_folder, dtype=resolve_dtype(base_folder, "auto"))
    if base_folder != model_folder:
        model = load_adapter(model, model_folder)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer, how, tools


def talk(options: ChatOptions, console: Console) -> int:
    """Run the conversation until an empty line or the end of input. Return the exit code."""
    settings = generation(options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunesmith-chat-")))
        with console.status("loading the model"):
            model, tokenizer, how, tools = _load(options, folder, stack)
        stack.close()  # the model is in memory; a run may have the embedded S3
    if console.is_terminal:
        console.print(Text(HELP, style="dim"))
    if how.note:
        console.print(Text(visible(how.note), style="dim"))
    ChatSession(console, model, tokenizer, settings, how, tools).run()
    return 0


def read_tools(path: Path) -> str:
    """Return the tools in a file, as conversations have them. Raises UsageError."""
    try:
        return tools_of({"tools": path.read_text("utf-8")}, ())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--tools {path}: {error}.") from None
    except RecordProblem as problem:
        raise UsageError(f"--tools {path}: {problem.message}.") from None
