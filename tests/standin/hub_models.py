"""What the hub on this machine says of repositories of models: made, written to by commits, read again."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import yaml

_LARGE = (".safetensors", ".gguf")


@dataclass
class ModelRepository:
    """A repository: its files, and one commit after each change. `pending` are large files not committed."""

    private: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])
    pending: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, Any] | None = None

    def card_data(self) -> dict[str, Any]:
        """What the card says, which is read from README.md as the hub does."""
        _, front, *_ = (*self.files.get("README.md", b"").decode().split("---\n", 2), "", "")
        return self.card or yaml.safe_load(front) or {}

    def info(self, name: str) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in sorted(self.files)]
        values = {"id": name, "sha": self.commits[-1], "private": self.private, "siblings": siblings}
        return values | {"cardData": self.card_data()}

    def modes(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """How each file is to be sent, and what is there already."""
        return {"files": [self._mode(each["path"]) for each in wanted["files"]]}

    def _mode(self, path: str) -> dict[str, Any]:
        large = path.endswith(_LARGE)
        data = self.files.get(path)
        oid = None if data is None else hashlib.sha256(data).hexdigest() if large else git_oid(data)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def commit(self, lines: bytes) -> str:
        """Apply what a commit says."""
        for line in lines.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            if said["key"] == "lfsFile":
                self.files[value["path"]] = self.pending[value["oid"]]
            if said["key"] == "deletedFile":
                del self.files[value["path"]]
        digest = hashlib.sha1(b"".join(path.encode() + data for path, data in sorted(self.files.items())))
        self.commits.append(digest.hexdigest())
        return self.commits[-1]


def git_oid(data: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
