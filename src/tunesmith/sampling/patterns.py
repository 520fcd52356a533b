"""Verifier `regex`: a pattern somewhere in the reply, or its first group equal to a field of the record.

The whole reply is searched, thoughts included, since a pattern may well be about them; `^` and `$` are the
user's to write. With a field the last match counts: a reply may try before it answers. Does not depend on
processes: the time limit here ends what backtracks for ever, so that its worker survives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex

from tunesmith.errors import PermanentError
from tunesmith.names import Reason
from tunesmith.sampling.reference import plain_text, text_reference
from tunesmith.sampling.verdict import NO_MATCH, TIMEOUT, WRONG_ANSWER, Verdict, accepted, rejected

SECONDS = 2.0


class ReplyPattern:
    """A compiled pattern and the field its first group must equal. Raises PermanentError for a bad one."""

    def __init__(self, pattern: str, field: str | None, path: str) -> None:
        self._field, self._path = field, f"{path}.field"
        try:
            self._pattern = regex.compile(pattern)
        except (regex.error, OverflowError, RecursionError) as error:
            raise PermanentError(
                f"{path}.pattern is not a regular expression: {error}.", reason=Reason.INVALID_MANIFEST
            ) from None
        if field is not None and not self._pattern.groups:
            raise PermanentError(
                f"{path}.pattern has no group, but {path}.field needs one: put ( ) around the answer.",
                reason=Reason.INVALID_MANIFEST,
            )

    def verify(self, record: Mapping[str, Any], reply: str) -> Verdict:
        """Return the verdict. Raises RecordProblem for a record without the field."""
        expected = None if self._field is None else text_reference(record, self._field, self._path)
        try:
            group = self._last_group(reply) if expected is not None else self._first_match(reply)
        except TimeoutError:
            return rejected(TIMEOUT, seconds=SECONDS)
        if group is None:
            return rejected(NO_MATCH)
        if expected is None or plain_text(group) == expected:
            return accepted(matched=group)
        return rejected(WRONG_ANSWER, matched=group, expected=expected)

    def _first_match(self, reply: str) -> str | None:
        match = self._pattern.search(reply, timeout=SECONDS)
        return None if match is None else str(match[0])

    def _last_group(self, reply: str) -> str | None:
        """Return the last match in which the first group took part."""
        last = None
        for match in self._pattern.finditer(reply, timeout=SECONDS):
            last = last if match[1] is None else str(match[1])
        return last
