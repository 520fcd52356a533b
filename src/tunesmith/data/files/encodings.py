"""Decode the encodings that a manifest may name to UTF-8, and detect which of them a file looks like.

Does not depend on what the text means. A guess is never used to decode, only in messages.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from tunesmith.data.record import FileProblem

UTF_8, UTF_16 = "utf-8", "utf-16"
# What files in these encodings contain on Windows, a little more than the standards of the same name.
_CODECS = {"shift_jis": "cp932", "big5": "cp950", "euc_kr": "cp949"}
_SAMPLE = 1 << 16
_FEW = 4
"""Characters that identify an encoding for certain."""
_MOST = 0.8
_HIGH = re.compile(rb"[\x80-\xff]+")


def as_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Decode a file piece by piece, without a byte order mark. Raises FileProblem with the line."""
    decoder = codecs.getincrementaldecoder(_CODECS.get(encoding, encoding))()
    line, first = 1, True
    for chunk in chain(chunks, [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line += error.object.count(b"\n", 0, error.start)
            raise FileProblem(
                f"byte 0x{error.object[error.start]:02x} is not {encoding}; set encoding to the file's",
                f"line {line}",
            ) from None
        line += text.count("\n")
        yield (text.removeprefix("\ufeff") if first else text).encode()
        first = first and not text


def is_utf8(sample: bytes, encoding: str) -> bool:
    """Return whether the beginning of a file is UTF-8 for certain, despite a different `encoding`."""
    try:
        text, _ = codecs.utf_8_decode(sample, "strict", False)
    except UnicodeDecodeError:
        return False
    if encoding == UTF_16:
        return b"\0" not in sample
    return len(text.encode("ascii", "ignore")) + _FEW <= len(text)


def looks_like(sample: bytes) -> str:
    """Return the encoding that the beginning of a file looks like; "" if it is UTF-8, or unclear.

    A few invalid bytes in UTF-8 do not make another encoding.
    """
    sample = sample[:_SAMPLE]
    text, _ = codecs.utf_8_decode(sample, "replace", False)
    broken = text.count("\ufffd") - sample.count("\ufffd".encode())
    if broken < 2 or broken <= sum(not c.isascii() for c in text) - broken or b"\0" in sample:
        return ""
    runs = [len(run) for run in _HIGH.findall(sample)]
    if runs.count(1) >= 0.7 * len(runs) and _share(_read_as(sample, "cp1252"), _western) >= _MOST:
        return "cp1252"
    for encoding, common, enough in _LIKELY:
        found = _read_as(sample, encoding)
        if enough(found) and _share(found, common) >= _MOST:
            return encoding
    return "gb18030" if _share(_read_as(sample, "gb18030"), str.isprintable) == 1 else ""


def _read_as(sample: bytes, encoding: str) -> list[str]:
    """Return the characters beyond ASCII; none if the sample is not in this encoding."""
    try:
        text = codecs.getincrementaldecoder(_CODECS.get(encoding, encoding))().decode(sample)
    except UnicodeDecodeError:
        return []
    return [character for character in text if not character.isascii()]


def _share(found: list[str], common: Callable[[str], bool]) -> float:
    return sum(map(common, found)) / len(found) if found else 0.0


def _western(character: str) -> bool:
    return character.isalpha() or character in "„“”‚‘’«»–—…€°"


def _in_rows(charset: str, *rows: tuple[int, int]) -> Callable[[str], bool]:
    """Return whether a character is in these rows (first bytes) of a double-byte character set."""

    def common(character: str) -> bool:
        try:
            first = character.encode(charset)[0]
        except UnicodeEncodeError:
            return False
        return any(low <= first <= high for low, high in rows)

    return common


def _has_kana(found: list[str]) -> bool:
    return _share(found, lambda character: "\u3041" <= character <= "\u30fa") >= 0.1


# Korean decoded as Chinese is common Chinese too, so much of it must be Korean; the rest is Chinese.
_LIKELY = (
    ("euc_kr", _in_rows("euc_kr", (0xA1, 0xA3), (0xB0, 0xC8)), lambda found: len(found) >= 20),
    ("shift_jis", _in_rows("euc_jp", (0xA1, 0xA5), (0xB0, 0xCF)), _has_kana),
    ("euc_jp", _in_rows("euc_jp", (0xA1, 0xA5), (0xB0, 0xCF)), _has_kana),
    ("gb18030", _in_rows("gb2312", (0xA1, 0xA3), (0xB0, 0xD7)), bool),
    ("big5", _in_rows("big5", (0xA1, 0xA3), (0xA4, 0xC6)), bool),
)
