"""Import transformers' tokenizers without what they do not need.

transformers and accelerate import whatever is installed: torch takes five seconds of a process that only
encodes text, and accelerate imports boto3 for a command of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages that are not imported yet look as if they were not installed, meanwhile."""
    modules = cast(dict[str, Any], sys.modules)
    names = [name for name in packages if name not in modules]
    modules.update(dict.fromkeys(names))  # None means "there is no such module" to the import system
    try:
        yield
    finally:
        for name in names:
            if modules.get(name) is None:
                modules.pop(name, None)


def auto_tokenizer() -> Any:
    """Return transformers' AutoTokenizer."""
    with hidden("boto3"):
        from transformers import AutoTokenizer

    return AutoTokenizer


def leave_out_torch() -> None:
    """Make torch look as if it were not installed to all that this process imports later."""
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # "PyTorch was not found", in a log of a training
    cast(dict[str, Any], sys.modules).setdefault("torch", None)
