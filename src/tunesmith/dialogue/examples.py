"""Some dialogues for people to look at: few, and short enough for a page.

Which are shown depends on their keys alone, so that it does not change from one run to the next nor favours
those that come first. Does not depend on pages.
"""

from __future__ import annotations

import heapq
from hashlib import blake2b
from typing import Any

from tunesmith.dialogue.state import ROLES, Round
from tunesmith.dialogue.statistics import FinishedDialogue

FINISHED, FAILED = 12, 8
"""How many are shown."""
_BEGIN, _END = 2400, 800


class DialogueExamples:
    """Finished dialogues and failed ones."""

    def __init__(self) -> None:
        self._finished, self._failed = _Kept(FINISHED), _Kept(FAILED)

    def add(self, grown: FinishedDialogue) -> None:
        """Offer one dialogue."""
        (self._finished if grown.failure is None else self._failed).offer(grown)

    def values(self) -> dict[str, list[dict[str, Any]]]:
        """Return `{finished: […], failed: […]}`, each as `example` makes it."""
        return {"finished": self._finished.values(), "failed": self._failed.values()}


class _Kept:
    """Those whose key has the smallest hash, up to a number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, str, dict[str, Any]]] = []

    def offer(self, grown: FinishedDialogue) -> None:
        digest = blake2b(grown.seed.key.encode(), digest_size=8).digest()
        place = (-int.from_bytes(digest), grown.seed.id)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (*place, example(grown)))
        elif place > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*place, example(grown)))

    def values(self) -> list[dict[str, Any]]:
        return [made for *_, made in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


def example(grown: FinishedDialogue) -> dict[str, Any]:
    """`id`, `key`, `first` (the first question), `rounds`: [[{role, content, truncated}]], each content
    `{begin, left_out, end}`; `failure` {round, role, reason, why, raw}, or None.
    """
    turn = grown.failure
    return {
        "id": grown.seed.id,
        "key": grown.seed.key,
        "first": grown.seed.rounds[0].question[:200],
        "rounds": [texts for texts in (_texts(each) for each in grown.dialogue.rounds) if texts],
        "failure": None
        if turn is None
        else {
            "round": turn.round,
            "role": str(turn.role),
            "reason": turn.said.reason,
            "why": turn.said.why,
            "raw": shortened(turn.said.raw),
        },
    }


def shortened(text: str) -> dict[str, Any]:
    """Return the beginning and end of a text; all of a short one is its beginning."""
    left_out = len(text) - _BEGIN - _END
    if left_out <= 0:
        return {"begin": text, "left_out": 0, "end": ""}
    return {"begin": text[:_BEGIN], "left_out": left_out, "end": text[-_END:]}


def _texts(round_: Round) -> list[dict[str, Any]]:
    return [
        {
            "role": str(role),
            "content": shortened(round_.shown(role)),
            "truncated": role in round_.truncated,
        }
        for role in ROLES
        if role in round_.texts
    ]
