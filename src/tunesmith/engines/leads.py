"""References in a model's files to other files: links, and file names in its JSON.

Libraries open files by the names in `tokenizer_config.json` (`vocab`, `fast_tokenizer_files`), an index of
weights or `config.json`, wherever these are. Not every such key is known, so every text that is the path of a
file is checked, by the rules of this process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.artifacts.opening import check_lead
from tunesmith.errors import ModelError, PermanentError

_MOST_BYTES = 64 << 20
_LONGEST_PATH = 4096
# Vocabularies: large, and their contents are not file names.
_CONTENT = ("tokenizer.json", "vocab.json")


def check_leads(folder: Path, named: str, *, cached: bool = False) -> None:
    """Raise PermanentError if a model's files refer to something outside its folder that may not be opened.

    `named` is the model in error messages. In the hub's cache (`cached`) files are links, created by the
    hub's client, and folders are not.
    """
    resolve = os.path.abspath if cached else os.path.realpath
    own = resolve(folder)
    for path, lead in (*(() if cached else _links(folder)), *_names(folder)):
        if f"{resolve(lead)}/".startswith(f"{own}/"):
            continue
        try:
            check_lead(lead)
        except PermanentError as error:
            raise PermanentError(
                f"{named}: {path.relative_to(folder)} points elsewhere. {error.message}", reason=error.reason
            ) from None


def _links(folder: Path) -> Iterator[tuple[Path, Path]]:
    for parent, folders, files in os.walk(folder):
        paths = [Path(parent, name) for name in (*folders, *files)]
        yield from ((path, path) for path in paths if path.is_symlink())


def _names(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each JSON file of a model with every path in it."""
    for path in sorted(folder.glob("*.json")):
        if path.name not in _CONTENT and path.is_file():
            yield from ((path, folder / text) for text in _texts(_read(path)) if _is_path(text))


def _read(path: Path) -> Any:
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, too large for a configuration.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None  # whoever reads it will report it


def _is_path(text: str) -> bool:
    """Return whether the kernel would accept a text as the path of a file in another folder."""
    try:
        return "/" in text and "\0" not in text and len(os.fsencode(text)) < _LONGEST_PATH
    except UnicodeEncodeError:
        return False


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in plain values, once."""
    seen, rest = set[str](), [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, list):
            rest += item
        elif isinstance(item, str) and item not in seen:
            seen.add(item)
            yield item
