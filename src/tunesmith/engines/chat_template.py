"""The chat template that a manifest chooses, in a copy of the model's tokenizer.

Everything that renders conversations loads the tokenizer from a folder, and the result's tokenizer is saved
from what was loaded, so a folder with another template is enough. Does not depend on what is rendered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.artifacts.open import find_files
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.hub import SMALL
from tunesmith.errors import ModelError
from tunesmith.tokens.chosen_template import ready_template, with_arguments

_FILE, _CONFIG = "chat_template.jinja", "tokenizer_config.json"
_LONGEST = 1 << 20


def with_chosen_template(source: ModelSource, tokenizer: Path, options: StorageOptions, folder: Path) -> Path:
    """Return the tokenizer's folder, or a copy of it in `folder` with the template that `source` chooses.

    Raises ModelError.
    """
    if source.chat_template is None:
        return tokenizer
    text = with_arguments(_text(source, tokenizer, options), source.chat_template.arguments)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for pattern in (*SMALL, *(["*.py"] if source.trust_remote_code else [])):
        for path in tokenizer.glob(pattern):
            if path.is_file() and not path.name.endswith(".index.json"):
                shutil.copyfile(path, folder / path.name)
    config = _config(tokenizer)
    if config.pop("chat_template", None) is not None:
        (folder / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / _FILE).write_text(text, "utf-8")
    return folder


def _text(source: ModelSource, tokenizer: Path, options: StorageOptions) -> str:
    """Return the chosen template's source, without its arguments."""
    chosen = source.chat_template
    assert chosen is not None
    if chosen.name is not None:
        tokens = control_tokens(tokenizer)
        return ready_template(chosen.name, tokens.__contains__)
    if chosen.uri is not None:
        return _fetch(chosen.uri, options)
    return chosen.text if chosen.text is not None else _own(tokenizer)


def _fetch(uri: str, options: StorageOptions) -> str:
    store, found = find_files(uri, options)
    if len(found) != 1 or found[0].size > _LONGEST:
        raise ModelError(f"model.chatTemplate.uri {uri} must be one file of at most {_LONGEST >> 20} MiB.")
    try:
        return store.read(found[0].key).decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"model.chatTemplate.uri {uri} is not UTF-8 text.") from None


def _own(tokenizer: Path) -> str:
    """Return the tokenizer's own template. Raises ModelError if it has none."""
    if (tokenizer / _FILE).is_file():
        return (tokenizer / _FILE).read_text("utf-8")
    given = _config(tokenizer).get("chat_template")
    if isinstance(given, list):
        given = next((each.get("template") for each in given if each.get("name") == "default"), None)
    if not isinstance(given, str):
        raise ModelError(
            "model.chatTemplate.arguments are for a chat template, and the model's tokenizer has none. "
            "Choose one with model.chatTemplate.name, as chatml."
        )
    return given


def control_tokens(tokenizer: Path) -> set[str]:
    """Return the added tokens listed in a tokenizer's files."""
    found: set[str] = set()
    for name in ("tokenizer.json", _CONFIG):
        content = _read(tokenizer / name)
        listed = content.get("added_tokens") or []
        decoder = content.get("added_tokens_decoder") or {}
        found |= {each["content"] for each in (*listed, *decoder.values()) if isinstance(each, dict)}
    return found


def _config(tokenizer: Path) -> dict[str, Any]:
    return _read(tokenizer / _CONFIG)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        return {}
    except ValueError:
        raise ModelError(f"{path} is not JSON.") from None
    return content if isinstance(content, dict) else {}
