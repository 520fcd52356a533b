"""A word-level cache for byte-level BPE, each word encoded once: the tokenizer's own ids, but faster.

Text repeats its words, and a byte-level BPE encodes each by itself, so a dictionary of words does most of the
work. Nothing is assumed: the tokenizer must be of a kind that is fully understood, it must agree on a set of
awkward texts, and every character is tested before a text that contains it is trusted to be split alike.
In case of doubt the cache returns None, and the tokenizer itself is used.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import regex

WordSplitter = Callable[[str], list[str]]

# A character, represented by "?", next to every kind of character.
PROBE = "a?b A?? 1?2 .?. ? ??\n?\n\n?  ?'? '?e 'l? 'r? '?\t?a?1?"
WORDS = 60_000
PATIENCE = 20_000
DIGITS = r"\p{N}|\P{N}+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# GPT2 with single digits split off: text before a digit ends there, as at the end of the text.
GPT2_BY_DIGITS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
ASCII_CLASSES = {"L": "A-Za-z", "Lu": "A-Z", "Ll": "a-z", "Lt": "", "Lm": "", "Lo": "", "M": "", "N": "0-9"}
AWKWARD = (
    "Hello, world! It's we'll 'S 'LL don’t",
    "a  b   c\n\n\nd \t\r\n  e\u3000f \u00a0g\n",
    "1 22 333 4444 12345,67.89 ½ Ⅷ ٣٤ 1a2b",
    "snake_case CamelCase HTMLParser foo.bar(baz) -> {x: [1]} // ### ~~~",
    "今天天气很好，我们去公园。被告人盗窃，判处三年。日本語テキストとカタカナ。한국어 문장",
    "naïve café e\u0301 ﬁ ǅ ſ K 😀👋🏽👨‍👩‍👧 a\u200bb\u200dc\ufeff",
    " leading and trailing  ",
    "\n",
    "",
)


class BpeCache:
    """The word dictionary of one tokenizer. Not thread-safe."""

    def __init__(self, backend: Any, split: WordSplitter) -> None:
        self._model, self._pre, self._split = backend.model, backend.pre_tokenizer, split
        self._composes = backend.normalizer is not None
        self._ids: dict[str, tuple[int, ...]] = {}
        self._tried: set[str] = set()
        self._doubtful: set[str] = set()
        self._looked_up = self._missed = 0
        self._try(set(map(chr, range(128))))
        self._doubtful_ascii = bool(self._doubtful)

    @classmethod
    def of(cls, tokenizer: Any) -> BpeCache | None:
        """Return the cache of a transformers tokenizer; None if how it splits text is not fully known."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not _is_plain_bpe(backend.model) or not _keeps_text(backend.normalizer):
            return None
        split = _splitter(backend.pre_tokenizer)
        words = split and cls(backend, split)
        if not words or any(words.ids(text) not in (None, _own(backend, text)) for text in AWKWARD):
            return None
        words._looked_up = words._missed = 0
        return words

    def ids(self, text: str) -> list[int] | None:
        """Return the ids of a text without added tokens; None if the tokenizer itself must encode it."""
        if self._looked_up > PATIENCE and self._missed * 4 > self._looked_up:
            return None  # words that hardly repeat, as in texts without spaces
        if text.isascii() and not self._doubtful_ascii:
            return self._of(text)
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return None
        characters = set(text)
        if not characters <= self._tried:
            self._try(characters - self._tried)
        if self._doubtful and not characters.isdisjoint(self._doubtful):
            return None
        return self._of(text)

    def _of(self, text: str) -> list[int] | None:
        words = self._split(text)
        if "".join(words) != text:
            return None
        self._looked_up += len(words)
        try:
            return self._joined(words)
        except KeyError:
            known = self._ids
            if len(known) > WORDS:
                known.clear()
            for word in words:
                if word not in known:
                    self._missed += 1
                    known[word] = self._encode(word)
            return self._joined(words)

    def _joined(self, words: list[str]) -> list[int]:
        ids: list[int] = []
        add = ids.extend  # faster than a chain of tuples, whose lengths it does not know
        for found in map(self._ids.__getitem__, words):
            add(found)
        return ids

    def _encode(self, word: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._model.tokenize(_as_characters(word)))

    def _try(self, characters: set[str]) -> None:
        """Test whether both split alike around each character, next to every kind of character."""
        for c in characters:
            probe = PROBE.replace("?", c)
            mine = [_as_characters(word) for word in self._split(probe)]
            if mine != [word for word, _ in self._pre.pre_tokenize_str(probe)]:
                self._doubtful.add(c)
            self._tried.add(c)


def _own(backend: Any, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def _is_plain_bpe(model: Any) -> bool:
    return (
        type(model).__name__ == "BPE"
        and not model.dropout
        and not model.byte_fallback
        and not model.continuing_subword_prefix
        and not model.end_of_word_suffix
    )


def _state(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _keeps_text(normalizer: Any) -> bool:
    """Return whether composed texts (NFC), as nearly all are, are left unchanged."""
    return normalizer is None or _state(normalizer) == {"type": "NFC"}


def _splitter(pre_tokenizer: Any) -> WordSplitter | None:
    """Return how the pre-tokenizer splits, before it maps bytes to characters; None if a part is unknown."""
    if pre_tokenizer is None:
        return None
    state = _state(pre_tokenizer)
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    if not steps or steps[-1]["type"] != "ByteLevel" or any(s["type"] == "ByteLevel" for s in steps[:-1]):
        return None
    patterns = [_pattern(step) for step in steps]
    if None in patterns:
        return None
    if patterns == [DIGITS, GPT2]:
        patterns = [GPT2_BY_DIGITS]
    compiled = [regex.compile(pattern) for pattern in patterns if pattern]
    if not compiled or any(each.groups for each in compiled):
        return None
    whole = _composed([each.findall for each in compiled])
    quick = _ascii(patterns, whole)
    return (lambda text: quick(text) if text.isascii() else whole(text)) if quick else whole


def _ascii(patterns: list[str | None], whole: WordSplitter) -> WordSplitter | None:
    """Return a splitter for ASCII text that uses Python's `re`, twice as fast; None if they differ."""
    try:
        quick = _composed(
            [re.compile(_in_ascii(pattern), re.ASCII).findall for pattern in patterns if pattern]
        )
    except (re.error, KeyError):
        return None
    probes = (PROBE.replace("?", chr(code)) for code in range(128))
    return quick if all(quick(probe) == whole(probe) for probe in probes) else None


def _in_ascii(pattern: str) -> str:
    r"""Return a pattern with \p{…} written out for ASCII. Raises KeyError for an unknown class."""
    inside, parts = False, []
    for part in re.findall(r"\\[pP]\{\w+\}|\\.|[^\\]", pattern):
        if part[:2] in (r"\p", r"\P"):
            known = ASCII_CLASSES[part[3:-1]]
            if part[1] == "P":
                part = f"[^{known}]" if not inside else _refuse(part)
            else:
                part = known if inside else f"[{known}]"
        elif part == "[":
            inside = True
        elif part == "]":
            inside = False
        parts.append(part)
    return "".join(parts)


def _refuse(part: str) -> str:
    raise KeyError(part)


def _composed(finders: list[WordSplitter]) -> WordSplitter:
    """Return a splitter in which each finder splits the pieces of the one before it.

    A split that loses text shows in the length.
    """
    first, *others = finders
    if not others:
        return first

    def split(text: str) -> list[str]:
        pieces = first(text)
        for finder in others:
            pieces = [word for piece in pieces for word in finder(piece)]
        return pieces

    return split


def _pattern(step: dict[str, Any]) -> str | None:
    """Return a pattern that finds the step's pieces; "" if the step splits nothing, None if it is unknown."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use}:
            return GPT2 if use else ""
        case {"type": "Digits", "individual_digits": True}:
            return DIGITS
        case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
            return pattern
        case _:
            return None


def byte_characters() -> dict[int, str]:
    """Return how byte-level BPE writes bytes as visible characters (Radford et al. 2019)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + n) for n, byte in enumerate(others)}


_CHARACTERS = byte_characters()
_ASCII = {ord(chr(byte)): _CHARACTERS[byte] for byte in range(128)}


def _as_characters(word: str) -> str:
    if word.isascii():
        return word.translate(_ASCII)
    return "".join(map(_CHARACTERS.__getitem__, word.encode()))
