"""Where a tokenizer was loaded from, so that another process can load the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """From where the same tokenizer can be loaded again, in another process."""

    folder: Path
    trusted: bool
    today: date
