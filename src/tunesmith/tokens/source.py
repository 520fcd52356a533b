"""The source of a tokenizer, so that another process can load the same one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """The folder and settings with which another process can load the same tokenizer."""

    folder: Path
    trusted: bool
    today: date
