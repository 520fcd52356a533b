"""Detect tokens that end in the middle of a character, with its first bytes but not the rest.

Decoders turn such bytes into a U+FFFD that nobody wrote. The bytes distinguish it from a U+FFFD that the
model did write, which has three bytes (EF BF BD). Does not depend on why the tokens end there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.tokens.bpe_cache import byte_characters

_REPLACEMENT = "\ufffd"
_MOST = 3
"""The most bytes that an incomplete UTF-8 character can have."""
_BYTE = re.compile("<0x([0-9A-F]{2})>")
_BYTES = {character: byte for byte, character in byte_characters().items()}

Decode = Callable[[Sequence[int]], str]
TokenBytes = Callable[[str], bytes | None]
"""Returns the bytes that a token's name stands for; None if it consists of complete characters."""


class WholeCharacters:
    """Texts of one transformers tokenizer, up to the last complete character."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)
        types = _decoder_types(tokenizer)
        self._level, self._known = "ByteLevel" in types, bool(types & {"ByteLevel", "ByteFallback"})
        self._token_bytes: TokenBytes = _level_bytes if self._level else _fallback_bytes

    def text(self, ids: Sequence[int], decode: Decode) -> str:
        """Return the text of `ids` by `decode`, without an incomplete last character.

        With a tokenizer whose bytes are unknown (one without a Rust backend) every U+FFFD at the end is lost.
        """
        if not self._known:
            return decode(ids).rstrip(_REPLACEMENT)
        missing = self.unfinished(ids)
        if not missing:
            return decode(ids)
        # A decoder of byte tokens rejects all bytes in a row if the last character is incomplete; a
        # byte-level one replaces only that, which may share a token with the character before it.
        return decode(ids).removesuffix(_REPLACEMENT) if self._level else decode(ids[:-missing])

    def unfinished(self, ids: Sequence[int]) -> int:
        """Return how many bytes at the end belong to an incomplete character, 0 to 3."""
        tail = b""
        for id_ in reversed(ids[-_MOST:]):
            name = self._tokenizer.convert_ids_to_tokens(int(id_))
            piece = None if id_ in self._added or name is None else self._token_bytes(name)
            if piece is None:
                break
            tail = piece + tail
        return _unfinished(tail)


def _unfinished(tail: bytes) -> int:
    for number in range(1, min(_MOST, len(tail)) + 1):
        if tail[-number] & 0xC0 != 0x80:  # the first byte of a character
            try:
                tail[-number:].decode()
            except UnicodeDecodeError as error:
                return number if error.reason == "unexpected end of data" else 0
            return 0
    return 0


def _decoder_types(tokenizer: Any) -> set[str]:
    """Return the types of a Rust tokenizer's decoders; an empty set if it has none, or is not one."""
    decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
    if decoder is None:
        return set()
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    return {step["type"] for step in state.get("decoders", [state])}


def _level_bytes(name: str) -> bytes | None:
    try:
        return bytes(_BYTES[character] for character in name)
    except KeyError:
        return None


def _fallback_bytes(name: str) -> bytes | None:
    found = _BYTE.fullmatch(name)
    return bytes([int(found[1], 16)]) if found else None
