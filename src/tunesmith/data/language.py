"""Which of two languages a prompt around a text should be in, by the characters of the text."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_KANA_OR_HANGUL = re.compile("[\u3041-\u3096\u30a1-\u30fa\u1100-\u11ff\uac00-\ud7a3]")
_WORD = re.compile(r"[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+")
_LOOKED_AT = 2000  # characters


def language_of(*texts: str | None) -> Language:
    """Chinese or English, of the first text that holds any letter; English for every other language.

    An ideograph counts as much as a word of another script, so that names and code do not decide. Kana and
    Hangul say that ideographs are Japanese or Korean.
    """
    for text in texts:
        part = (text or "")[:_LOOKED_AT]
        ideographs, words = len(_IDEOGRAPH.findall(part)), len(_WORD.findall(part))
        if ideographs or words:
            chinese = ideographs > words and not _KANA_OR_HANGUL.search(part)
            return "zh" if chinese else "en"
    return "en"
