"""Control tokens: those a text forges, literally or through a normaliser, and those that end generation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunesmith.tokens.encode import RecordError


def refuse_control(text: str, where: str, control: re.Pattern[str]) -> None:
    """Raise RecordError if a text contains a control token, which would be encoded and could forge a turn."""
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
    """Raise RecordError if one of a reply's ids, except the last, opens or ends a turn."""
    if not turn_ids.isdisjoint(reply[:-1]):
        raise RecordError("the reply's text becomes control tokens of the model; remove or rewrite them")


def named_ends(folder: Path) -> set[int]:
    """Return the `eos_token_id` values of generation_config.json; none if it cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        named = json.loads((folder / "generation_config.json").read_bytes()).get("eos_token_id")
        return {each for each in (named if isinstance(named, list) else [named]) if isinstance(each, int)}
    return set()
