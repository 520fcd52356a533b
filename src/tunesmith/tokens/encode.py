"""Text to token ids and back, so that a prompt's ids are those that inference would have.

Depends on the tokenizer and its control tokens, not on messages, turns and labels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tunesmith.errors import DataError
from tunesmith.tokens.bpe_cache import BpeCache

FRAMES, FRAME_CHARACTERS = 1000, 500
PIECE_CHARACTERS = 1 << 18
_PLAIN_LINE, _LINE = re.compile(r"(?<=\S\n)(?=\S)"), re.compile(r"(?<=\n)(?=[^\r\n])")


class RecordError(DataError):
    """A record cannot become samples. The message is the reason alone; the caller adds file and line."""


class PromptReply(NamedTuple):
    """The ids of a prompt and of the reply after it; the two lists joined are what the model sees."""

    prompt: list[int]
    reply: list[int]


class Encoder:
    """A transformers tokenizer as used in this package: no special tokens added, no truncation or padding."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_id: int | None = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        self.added: dict[str, int] = {}
        self.special: dict[str, int] = dict(
            zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        )
        for id_, token in tokenizer.added_tokens_decoder.items():
            # Some tokenizers have runs of blanks as added tokens; those are text, not control tokens.
            if token.content.strip():
                self.added[token.content] = id_
                if token.special:
                    self.special[token.content] = id_
        self.added |= self.special
        self._frames: dict[str, list[int]] = {}
        self._separates: dict[str, bool] = {}

    def many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text by itself."""
        if not self.tokenizer.is_fast:
            return self._encoded(texts)
        found = [self._by_words(text) for text in texts]
        asked = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        answers = iter(self._encoded(asked) if asked else ())
        return [next(answers) if ids is None else ids for ids in found]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids from the tokenizer itself, without the cache."""
        if self.tokenizer.is_fast:
            backend = self.tokenizer.backend_tokenizer
            if backend.truncation is None and backend.padding is None:
                # The same, without the offsets and masks, which are not needed here.
                return [each.ids for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _by_words(self, text: str) -> list[int] | None:
        """Return the ids from the word cache; None if the tokenizer itself must encode the text."""
        if self._words is None:
            return None
        ids: list[int] = []
        for at, part in enumerate(self._added_tokens.split(text)):
            if at % 2:
                ids.append(self._added_ids[part])
            elif part:
                found = self._words.ids(part)
                if found is None:
                    return None
                ids += found
        return ids

    @cached_property
    def _words(self) -> BpeCache | None:
        """The word cache; None if added tokens absorb adjacent text, or the tokenizer is not fully known."""
        added = self.tokenizer.added_tokens_decoder.values()
        normalises = self.tokenizer.backend_tokenizer.normalizer is not None
        if any(t.lstrip or t.rstrip or t.single_word or (t.normalized and normalises) for t in added):
            return None
        return BpeCache.of(self.tokenizer)

    @cached_property
    def _added_ids(self) -> dict[str, int]:
        return {token.content: id_ for id_, token in self.tokenizer.added_tokens_decoder.items()}

    @cached_property
    def _added_tokens(self) -> re.Pattern[str]:
        return re.compile(f"({pattern_of(list(self._added_ids)).pattern})")

    def ids(self, text: str) -> list[int]:
        """Return the ids of one text."""
        return self.many([text])[0]

    def pieces(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of a text, those of a long one piece by piece, so that few are in memory.

        A piece ends with a line break, if possible one without blanks around it: there the ids are those of
        the whole text. Elsewhere they may differ, but decode to the same text.
        """
        start = 0
        while len(text) - start > PIECE_CHARACTERS and self._cuts_at_lines:
            least = start + PIECE_CHARACTERS
            found = _PLAIN_LINE.search(text, least, least + PIECE_CHARACTERS) or _LINE.search(text, least)
            if found is None:
                break
            yield self._after_line(text[start : found.start()]) if start else self.ids(text[: found.start()])
            start = found.start()
        yield self._after_line(text[start:]) if start else self.ids(text)

    def _after_line(self, text: str) -> list[int]:
        """Return the ids of a text that follows a line break."""
        return self.ids(text) if self.joins else self.ids("\n" + text)[len(self.frame("\n")) :]

    @cached_property
    def _cuts_at_lines(self) -> bool:
        """Whether text before and after a line break is encoded independently."""
        pairs = (("a b.\n", "c d"), ("你好。\n", "再见"), ("x\n", '"y"'), ("1\n", "2"))
        return all(self.ids(one + two) == self.ids(one) + self._after_line(two) for one, two in pairs)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` with control tokens, without clean-up."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    @cached_property
    def joins(self) -> bool:
        """Whether pieces encoded one by one decode to the joined text.

        True for byte-level BPE; False if a blank is put in front of each piece (sentencepiece).
        """
        pieces = ("a", " a", "\n", "你", "1")
        before, *after = self.many(["x", *pieces])
        return all(self.decode(before + ids) == "x" + piece for ids, piece in zip(after, pieces, strict=True))

    def frame(self, text: str) -> list[int]:
        """Return the ids of a text that precedes many replies, encoded once if it is short."""
        if text not in self._frames:
            if len(self._frames) >= FRAMES or len(text) > FRAME_CHARACTERS:
                return self.ids(text)
            self._frames[text] = self.ids(text)
        return self._frames[text]

    def separates(self, token: str) -> bool:
        """Return whether text before and after the added token `token` is always encoded independently.

        That is so if pieces join, the token is matched literally, absorbs no white space, and no other added
        token can overlap it.
        """
        if token not in self._separates:
            self._separates[token] = self._separates_text(token)
        return self._separates[token]

    def _separates_text(self, token: str) -> bool:
        mine = self.tokenizer.added_tokens_decoder.get(self.added.get(token, -1))
        if mine is None or not self.tokenizer.is_fast or not self.joins:
            return False
        if mine.lstrip or mine.rstrip or mine.single_word or mine.normalized:
            return False
        others = {added.content for added in self.tokenizer.added_tokens_decoder.values()} - {token}
        return not any(overlap(token, other) or overlap(other, token) or token in other for other in others)

    @cached_property
    def starts_with_bos(self) -> bool:
        """Whether the tokenizer itself puts BOS before a plain text."""
        ids: list[int] = self.tokenizer("x")["input_ids"]
        return self.bos_id is not None and bool(ids) and ids[0] == self.bos_id

    def pair(self, prompt: str, reply: str) -> PromptReply:
        """Return the ids of a prompt exactly as in inference, and the ids of the reply that follows.

        Raises RecordError if the tokenizer has no ids that continue the prompt with the reply's text.
        """
        if self.joins:
            return PromptReply(*self.many([prompt, reply]))
        prompt_ids, whole = self.many([prompt, prompt + reply])
        rest = whole[len(prompt_ids) :]
        if whole[: len(prompt_ids)] == prompt_ids and self._reads_as(rest, reply):
            return PromptReply(prompt_ids, rest)
        # After a control token most such tokenizers add no blank, so the reply's text is unchanged.
        guarded = self.ids(str(self.tokenizer.eos_token) + reply)[1:]
        if self._reads_as(guarded, reply):
            return PromptReply(prompt_ids, guarded)
        raise RecordError(
            "the tokenizer cannot separate this reply from its prompt: their tokens run into each other "
            f"or lose text, at {prompt[-20:]!r} followed by {reply[:20]!r}"
        )

    def _reads_as(self, ids: list[int], text: str) -> bool:
        # A token before it keeps the decoder from stripping a leading blank. Tokenizers may
        # normalise characters (NFC, NFKC), which happens in inference too.
        guard = [self.eos_id] if self.eos_id is not None else []
        read = self.decode(guard + ids)[len(self.decode(guard)) :]
        return read == text or unicodedata.normalize("NFKC", read) == unicodedata.normalize("NFKC", text)

    def cuts(self, text: str) -> list[int]:
        """Return, at index k, the character position from which `text` is at most k tokens shorter.

        Tokens that are parts of one character share its position, so no cut splits a character.
        """
        if not self.tokenizer.is_fast:
            return list(range(len(text)))
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [start for start, _ in encoded["offset_mapping"]]


def overlap(left: str, right: str) -> bool:
    """Return whether some suffix of `left` is a prefix of `right`."""
    return any(right.startswith(left[-size:]) for size in range(1, min(len(left), len(right)) + 1))


def pattern_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of `tokens`, the longest first; it never matches if there are none."""
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
