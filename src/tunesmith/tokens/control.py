"""Control tokens: those that a text forges, written out or by a normaliser, and those that end generation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunesmith.tokens.encode import RecordError


def refuse_control(text: str, where: str, control: re.Pattern[str]) -> None:
    """Raise RecordError if a text has a control token, which would be a real one and could forge a turn."""
    match = control.search(text)
    if match:
        raise RecordError(
            f"{where} contains {match.group()!r}, one of the model's control tokens; remove or rewrite it"
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{where} contains a lone surrogate, half of a character") from error


def refuse_forged(reply: Sequence[int], turn_ids: frozenset[int]) -> None:
    """Raise RecordError if one of a reply's ids but the last opens or ends a turn."""
    if not turn_ids.isdisjoint(reply[:-1]):
        raise RecordError("the reply's text becomes control tokens of the model; remove or rewrite them")


def named_ends(folder: Path) -> set[int]:
    """Return what generation_config.json names as `eos_token_id`, if it can be read."""
    with suppress(OSError, ValueError, AttributeError):
        named = json.loads((folder / "generation_config.json").read_bytes()).get("eos_token_id")
        return {each for each in (named if isinstance(named, list) else [named]) if isinstance(each, int)}
    return set()
