"""Choose the language of a prompt around a text, by the text's characters."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from typing import Literal

Language = Literal["en", "zh", "ja"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
"""The language of most prompts."""
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc\uff66-\uff9d]")
_HANGUL = re.compile("[\u1100-\u11ff\uac00-\ud7a3]")
_WORD = re.compile(r"[^\W\d_\u3041-\u30fc\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff66-\uff9d]+")
_LOOKED_AT = 2000  # characters


def language_of(*texts: str | None, among: Container[Language] = LANGUAGES) -> Language:
    """Return the language of the first text with any letter; English if it is not in `among`.

    An ideograph counts as much as a word of another script, so that names and code do not decide. Kana make
    ideographs Japanese, if every twentieth character is one: Chinese sometimes quotes a の.
    """
    for text in texts:
        part = (text or "")[:_LOOKED_AT]
        ideographs, kana = len(_IDEOGRAPH.findall(part)), len(_KANA.findall(part))
        others = len(_WORD.findall(part)) + len(_HANGUL.findall(part))
        if ideographs or kana or others:
            if ideographs + kana <= others:
                return "en"
            found: Language = "ja" if 20 * kana >= ideographs + kana else "zh"
            return found if found in among else "en"
    return "en"


def start_of(texts: Iterable[str]) -> str:
    """Return the texts up to where `language_of` stops reading, one per line."""
    found: list[str] = []
    size = 0
    for text in texts:
        found.append(text)
        size += len(text) + 1
        if size >= _LOOKED_AT:
            break
    return "\n".join(found)
