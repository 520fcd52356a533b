"""Cache of prepared samples, keyed by what they are made from.

The key: the bytes of the input, the settings that shape samples, the tokenizer, and this code. Safe for
several processes at once. Does not depend on how samples are made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tunesmith.data
import tunesmith.tokens
from tunesmith.api.datasets import DatasetSpec, ValidationSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.open import commit_of, find_files, find_records
from tunesmith.artifacts.store import Entry, ReadableStore, StorageOptions
from tunesmith.data.lengths import longest_sample
from tunesmith.data.prepare import PrepareProgress, prepare
from tunesmith.data.prepared import REPORT, Prepared, load_prepared
from tunesmith.tokens.chat import ChatTokenizer

# How many first samples per kind are kept: as many as people usually look at; a request for fewer reuses
# them.
FIRST_KEPT = 20
KEPT = 12
SECONDS_KEPT = 7 * 24 * 3600
# Templates that print the date contain one of these.
_DATED = ("strftime_now", "date_string")
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens*",
    "added_tokens*",
    "vocab*",
    "merges*",
    "chat_template*",
    "*.model",
    "*.py",
)


def prepare_once(
    cache: Path,
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    progress: PrepareProgress = lambda name, records: None,
    *,
    first: int,
    vocab_size: int | None = None,
    positions: int | None = None,
) -> tuple[Path, Prepared]:
    """Prepare as `prepare` does, in a possibly existing folder below `cache`; return that folder too.

    Waits while another process makes the same samples.
    """
    kept = max(first, FIRST_KEPT)
    key = cache_key(spec, tokenizer, options, first=kept, vocab_size=vocab_size, positions=positions)
    cache.mkdir(parents=True, exist_ok=True)
    folder, temp = cache / key, cache / f"{key}.new"
    with _locked(cache / f"{key}.lock"):
        if (folder / REPORT).exists():
            (folder / REPORT).touch()
        else:
            shutil.rmtree(temp, ignore_errors=True)  # of a process that was killed
            try:
                sizes = {"vocab_size": vocab_size, "positions": positions}
                prepare(spec, tokenizer, options, temp, progress, first=kept, **sizes)
                temp.rename(folder)
            finally:
                shutil.rmtree(temp, ignore_errors=True)
        prepared = load_prepared(folder, first)
    _forget_old(cache)
    return folder, prepared


def cache_key(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    *,
    first: int,
    vocab_size: int | None,
    positions: int | None = None,
) -> str:
    """Return a hash of everything that determines the samples."""
    parts: list[DatasetSpec | ValidationSpec] = [*spec.datasets, spec.validation]
    laws = [part.sampled for part in parts if part.sampled]
    articles = [uri for law in laws for uri in (law.articles_uri, law.changed_articles_uri)]
    found = [find_records(part, options) for part in parts if part.uri is not None]
    found += [find_files(uri, options) for uri in articles if uri is not None]
    dated = any(word in str(tokenizer.tokenizer.chat_template) for word in _DATED)
    training = spec.training
    longest = longest_sample(training.max_length, positions)
    facts = {
        "code": _code(),
        "datasets": [dataset.model_dump(mode="json") for dataset in spec.datasets],
        "validation": spec.validation.model_dump(mode="json"),
        "training": [longest, training.truncate_prompt, training.truncate_reply, training.seed],
        "tokenizer": _tokenizer(tokenizer),
        "day": tokenizer.today.isoformat() if dated else "",
        "shape": [first, vocab_size, positions],
        "inputs": [_content(store, entries) for store, entries in found],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _content(store: ReadableStore, entries: list[Entry]) -> list[list[Any]]:
    versions = [[entry.key, entry.size, entry.version or store.version(entry.key)] for entry in entries]
    return [[commit_of(store)], *versions]


def _code() -> list[str]:
    """Return the installed versions of what makes the samples."""
    digest = hashlib.sha256()
    for package in (tunesmith.data, tunesmith.tokens):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return [digest.hexdigest(), *(version(name) for name in ("transformers", "tokenizers", "regex"))]


def _tokenizer(tokenizer: ChatTokenizer) -> list[list[str]]:
    assert tokenizer.source is not None
    folder = tokenizer.source.folder
    files = sorted({path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})
    return [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(cache: Path) -> None:
    """Remove what was not used for a week, except the newest. Open tables can still be read."""
    made = sorted(cache.glob(f"*/{REPORT}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for report in made[KEPT:]:
        if time.time() - report.stat().st_mtime > SECONDS_KEPT:
            shutil.rmtree(report.parent, ignore_errors=True)
            report.parent.with_suffix(".lock").unlink(missing_ok=True)
