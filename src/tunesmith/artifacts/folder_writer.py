"""A folder of local files that appears at once, when it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tunesmith.artifacts.local_files import explained

FACTS = "facts.json"


class FolderWriter:
    """Writes one folder beside its place. Use as a context manager: without `finish_folder`, nothing is left.

    An unfinished folder of a process that was killed is cleared away by the next one. Raises what
    `local_files.explain` makes of an OSError.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Open a file for each of `names`, in `self.files`."""
        self._folder, self.temp = folder, folder.with_name(f"{folder.name}.new")
        with explained("write", self.temp):
            shutil.rmtree(self.temp, ignore_errors=True)
            self.temp.mkdir(parents=True)
            self.files = {name: (self.temp / name).open("wb") for name in names}

    def finish_folder(self, more: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
        """Add whole files and `facts` as JSON, then give the folder its name, in place of what is there."""
        with explained("write", self.temp):
            for file in self.files.values():
                file.close()
            for name, content in more.items():
                (self.temp / name).write_bytes(content)
            (self.temp / FACTS).write_text(json.dumps(facts, ensure_ascii=False), "utf-8")
            shutil.rmtree(self._folder, ignore_errors=True)
            self.temp.rename(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self.files.values():
            with suppress(OSError):  # of a full disk, which has been reported already
                file.close()
        shutil.rmtree(self.temp, ignore_errors=True)
