"""Where `tunesmith export` keeps its files: empty before, or what an export of the same left unfinished.

Files are claimed by a first one and finished by `manifest.json`, so that a killed command leaves nothing that
looks whole, and no command writes among another's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.artifacts.publish import publish, read_manifest
from tunesmith.artifacts.store import Store
from tunesmith.errors import UsageError
from tunesmith.names import MANIFEST_KEY

KIND = "Export"
_CLAIM = "exporting.json"
_OF = "of"


class ExportPlace:
    """An address for forms of a model."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def uri(self) -> str:
        """Return the address."""
        return self._store.uri

    def refuse_other(self) -> None:
        """Raise UsageError if there is anything but an export, before there is one to keep."""
        manifest = read_manifest(self._store, "")
        if manifest is not None:
            kind = manifest.extra.get("kind", "other")
            if kind != KIND:
                raise UsageError(f"--output {self.uri} has the finished result of a {kind}. {_ANOTHER}")
            return
        if self._store.exists(_CLAIM):
            return
        first = next((entry.key for entry in self._store.list("")), None)
        if first is not None:
            raise UsageError(f"--output {self.uri} is not empty: it has {first}. {_ANOTHER}")

    def has(self, what: Mapping[str, Any]) -> bool:
        """Return whether this very export is there. Raises UsageError for another one."""
        manifest = read_manifest(self._store, "")
        if manifest is None:
            return False
        if manifest.extra.get(_OF) != what:
            raise UsageError(f"--output {self.uri} has an export of another model or form. {_ANOTHER}")
        return True

    def keep(self, folder: Path, what: Mapping[str, Any]) -> None:
        """Publish the files of a folder, the manifest last; what an unfinished export left goes first.

        Raises UsageError if anything else has come there since.
        """
        self.refuse_other()
        self._store.put(_CLAIM, json.dumps(what).encode())
        left = [entry.key for entry in self._store.list("")]
        self._store.delete([key for key in left if key not in (_CLAIM, MANIFEST_KEY)])
        publish(self._store, "", folder, extra={"kind": KIND, _OF: what})
        self._store.delete([_CLAIM])


_ANOTHER = "Choose another place."
