"""One job to preview, with its inputs resolved, and where its preview goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tunesmith.api.common import JobSpec, ModelSource
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.artifacts.local_files import explained
from tunesmith.artifacts.store import HubAccess, StorageOptions, storage_options
from tunesmith.data.prepared import Prepared
from tunesmith.engines.files import ModelFiles, fetch_files
from tunesmith.local.preview.console import say
from tunesmith.names import secret_env
from tunesmith.tokens.chat import ChatTokenizer

TrainingNeeds = Callable[[FineTuneSpec, ModelFiles, ChatTokenizer, Prepared], list[str]]


def _unknown(*_: object) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """A job whose `spec` has every `fromJob` resolved. `first`: how many of each kind are shown.

    `cache` is where prepared samples are kept, `folder` is deleted afterwards, `page` is the HTML file.
    """

    job: Job
    spec: JobSpec
    first: int
    cache: Path
    folder: Path
    page: Path | None
    console: Console
    needs: TrainingNeeds = _unknown
    """Returns what training will need, in sentences."""

    @property
    def token(self) -> str | None:
        """The token for the hub, if there is one."""
        secret = self.spec.hub.token_secret_ref
        return os.environ.get(secret_env(secret.name, secret.key) if secret else "HF_TOKEN")

    @property
    def options(self) -> StorageOptions:
        """How the job's inputs are reached."""
        hub = HubAccess(self.spec.hub.endpoint, self.spec.hub.offline, self.token)
        return replace(storage_options(self.spec.storage), hub=hub)

    def tokenizer(self, model: ModelSource) -> tuple[ModelFiles, ChatTokenizer]:
        """Fetch a model's configuration and tokenizer, without its weights. Raises TunesmithError."""
        with self.console.status("fetching the tokenizer"):
            files = fetch_files(
                model, self.spec.hub, self.options, self.folder, self.token, tokenizer_only=True
            )
            trusted = model.trust_remote_code
            return files, ChatTokenizer.load(files.tokenizer, trust_remote_code=trusted)

    def write_page(self, html: str, name: str = "") -> None:
        """Write the page, if one is wanted; one that has a `name` beside it."""
        if self.page is None:
            return
        page = self.page.with_stem(f"{self.page.stem}-{name}") if name else self.page
        with explained("write", page):
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(html, "utf-8")
        say(self.console, f"Page: {page}", "green")

    def counting(self, what: str) -> CountingStatus:
        """Return a context that shows how many records have been read."""
        return CountingStatus(self.console, what)


class CountingStatus:
    """A line on the terminal that counts records; gone when the context ends."""

    def __init__(self, console: Console, what: str) -> None:
        self._status, self._what = console.status(Text(what)), what

    def __enter__(self) -> CountingStatus:
        self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._status.stop()

    def records(self, number: int, name: str = "") -> None:
        """Show how many records have been read."""
        self._status.update(Text(f"{name or self._what}: {number:,} records"))
