"""The end of a reply, and its text: end-of-turn tokens, stop texts and the token limit."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.engines.engine import GeneratedReply
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.thoughts import TAGS

# Tokens checked beyond a stop text's own: special ones have no text, and a character may be split.
_MARGIN = 8


class StopText:
    """Finds the first of some texts in a stream, and holds back what might be its prefix."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]

    def end(self, text: str) -> int | None:
        """Return where the reply ends; None if it does not."""
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        return min(found) if found else None

    def safe(self, text: str) -> int:
        """Return how much of `text` can be shown: no stop text can start before that position."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            if any(stop.startswith(text[start:]) for stop in self._stops):
                return start
        return len(text)


class Endings:
    """Decides whether the tokens of a reply are complete, and decodes them."""

    def __init__(self, tokenizer: ChatTokenizer, stop_texts: Sequence[str]) -> None:
        backend = tokenizer.tokenizer
        self._tokenizer, self._stop = tokenizer, StopText(stop_texts)
        self._stop_ids = tokenizer.stop_ids
        added = backend.added_tokens_decoder.items()
        self._special = {*backend.all_special_ids, *(id_ for id_, token in added if token.special)}
        self._special -= {id_ for id_, token in added if token.content in TAGS}
        # A token is at least one byte of text, so that many tokens contain the longest stop text.
        longest = max((len(text.encode("utf-8", "surrogatepass")) for text in stop_texts), default=0)
        self._window = longest + _MARGIN if longest else 0
        self._guard = [] if backend.eos_token_id is None else [backend.eos_token_id]
        self._guard_text = tokenizer.decode(self._guard)

    def reply(self, ids: Sequence[int], limit: int) -> GeneratedReply | None:
        """Return the reply if `ids`, all tokens sampled so far, complete it; None if it continues.

        Call this after each token. `limit` is the maximum number of tokens.
        """
        stopped = ids[-1] in self._stop_ids
        if not stopped and len(ids) < limit and not self._may_stop(ids):
            return None
        text = self.text(ids[:-1] if stopped else ids)
        end = self._stop.end(text)
        if end is not None:
            return GeneratedReply(text[:end], len(ids), "stop")
        if stopped:
            return GeneratedReply(text, len(ids), "stop")
        return GeneratedReply(text, len(ids), "length") if len(ids) >= limit else None

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of a reply's tokens up to the last complete character, not stripped.

        Special tokens are left out, except tags of thoughts, which are special in some tokenizers.
        """
        kept = [id_ for id_ in ids if id_ not in self._special]
        # With a token before them, decoders do not strip a leading blank.
        guarded = self._tokenizer.decode_whole([*self._guard, *kept])
        if guarded.startswith(self._guard_text):
            return guarded[len(self._guard_text) :]
        return self._tokenizer.decode_whole(kept)

    def _may_stop(self, ids: Sequence[int]) -> bool:
        """Return whether the last few tokens contain a stop text; decoding all each time would be slow."""
        return bool(self._window) and self._stop.end(self.text(ids[-self._window :])) is not None
