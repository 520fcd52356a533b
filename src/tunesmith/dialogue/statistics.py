"""What `stats.json` says, counted dialogue by dialogue from rows that are done.

Memory does not grow with the number of dialogues. Does not depend on files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.dialogue.money import dollars
from tunesmith.dialogue.replies import Mark
from tunesmith.dialogue.state import ROLES, Dialogue, PlannedSeed
from tunesmith.dialogue.turns import REASONS, CallRow

_MOST_BINS = 40
_MOST_MODELS = 20


@dataclass(frozen=True, slots=True)
class LostInFlight:
    """Requests of killed processes that have no reply, and what they may have cost at most, in picodollars.

    If the disk was lost too, replies may be lost with it, so that there may be more of them.
    """

    calls: int = 0
    money: int = 0


NOTHING_LOST = LostInFlight()


@dataclass(frozen=True, slots=True)
class FinishedDialogue:
    """One dialogue at its end: what was said, and all calls made for it.

    `before` are calls that failed and were retried.
    """

    dialogue: Dialogue
    turns: Sequence[CallRow]
    before: Sequence[CallRow] = ()

    @property
    def seed(self) -> PlannedSeed:
        """The seed that it began with."""
        return self.dialogue.seed

    @property
    def failure(self) -> CallRow | None:
        """Return the call that ended it, if one did."""
        return self.turns[-1] if self.turns and self.turns[-1].said.reason else None


@dataclass(slots=True)
class _OfRole:
    calls: int = 0
    failed: int = 0
    truncated: int = 0
    retries: int = 0
    estimated: int = 0
    prompt: int = 0
    completion: int = 0
    cost: int = 0
    seconds: float = 0.0
    lengths: Counter[int] = field(default_factory=Counter)
    cost_by_round: Counter[int] = field(default_factory=Counter)

    def add(self, turn: CallRow) -> None:
        said = turn.said
        self.calls += 1
        self.failed += bool(said.reason)
        self.truncated += said.truncated
        self.retries += max(0, said.tries - 1)
        self.estimated += said.estimated
        self.prompt += said.prompt_tokens
        self.completion += said.completion_tokens
        self.cost += said.cost
        self.seconds += said.seconds
        self.cost_by_round[turn.round] += said.cost
        if not said.reason:
            self.lengths[said.completion_tokens] += 1

    def values(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "answered": self.calls - self.failed,
            "failed": self.failed,
            "truncated": self.truncated,
            "retries": self.retries,
            "tokens": {"prompt": self.prompt, "completion": self.completion},
            "calls_with_estimated_tokens": self.estimated,
            "seconds": round(self.seconds, 1),
            "cost_usd": dollars(self.cost),
        }


class DialogueStatistics:
    """Feed it with `add`, then ask for `values`. What was `lost` in flight is in no dialogue's calls."""

    def __init__(self, rounds: int, lost: LostInFlight = NOTHING_LOST) -> None:
        self._lost = lost
        self._planned = self._nothing_asked = 0
        self._whole = [0] * rounds
        self._roles = {role: _OfRole() for role in ROLES}
        self._reasons: Counter[str] = Counter()
        self._odd: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._first, self._last = 0, 0

    def add(self, grown: FinishedDialogue) -> None:
        """Count one dialogue, finished or failed."""
        self._planned += 1
        self._nothing_asked += not grown.turns
        for number in range(min(len(self._whole), len(grown.dialogue.whole_rounds))):
            self._whole[number] += 1
        for turn in (*grown.before, *grown.turns):
            self._odd.update(turn.said.marks)
            if turn.said.model and (turn.said.model in self._models or len(self._models) < _MOST_MODELS):
                self._models[turn.said.model] += 1
            self._roles[turn.role].add(turn)
            self._first, self._last = min(self._first or turn.at, turn.at), max(self._last, turn.at)
        if grown.failure is not None:
            self._reasons[grown.failure.said.reason] += 1

    def values(self) -> dict[str, Any]:
        """Return the counts by name:

        - `dialogues`: `planned`, `finished`, `failed`, `nothing_asked` (they were whole in the seeds);
          `finished_by_round`: how many came so far, from round 1 on; `reasons`: {reason: dialogues that
          failed so}
        - `roles`: of each role `calls`, `answered`, `failed`, `truncated` (answered, up to maxTokens),
          `retries`, `tokens` {prompt, completion}, `calls_with_estimated_tokens` (the server did not count),
          `seconds` (waiting for replies, over all calls), `cost_usd`; `total`: the same over all roles
        - `lost_in_flight_calls`: requests, beside `calls` and `retries`, whose outcome nobody knows since
          their process was killed; `lost_in_flight_usd`: what they may have cost at most, beside `cost_usd`;
          `against_budget_usd`: both together, which is what counts against budget.maxUsd
        - `odd_replies`: {`replies.Mark`: answers that are odd so}; `other_models`: {name: answers of a model
          other than was asked}
        - `seconds`: from the first call's end to the last's
        - `lengths`: of each role `[{low, high, count}]`, texts by tokens, both included
        - `cost_by_round`: `[{round, question, answer, correction}]` in USD
        """
        failed = sum(self._reasons.values())
        roles = {str(role): self._roles[role].values() for role in ROLES}
        return {
            "dialogues": {
                "planned": self._planned,
                "finished": self._planned - failed,
                "failed": failed,
                "nothing_asked": self._nothing_asked,
                "finished_by_round": self._whole,
                "reasons": {name: self._reasons[name] for name in REASONS if self._reasons[name]},
            },
            "roles": roles,
            "total": self._total(roles),
            "lost_in_flight_calls": self._lost.calls,
            "lost_in_flight_usd": dollars(self._lost.money),
            "against_budget_usd": dollars(sum(each.cost for each in self._roles.values()) + self._lost.money),
            "odd_replies": {str(mark): self._odd[mark] for mark in Mark if self._odd[mark]},
            "other_models": dict(sorted(self._models.items())),
            "seconds": self._last - self._first,
            "lengths": {str(role): bins(self._roles[role].lengths) for role in ROLES},
            "cost_by_round": [self._cost_of(number) for number in range(1, len(self._whole) + 1)],
        }

    def _total(self, roles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        names = ("calls", "answered", "failed", "truncated", "retries", "calls_with_estimated_tokens")
        return {
            **{name: sum(each[name] for each in roles.values()) for name in names},
            "tokens": {
                name: sum(each["tokens"][name] for each in roles.values())
                for name in ("prompt", "completion")
            },
            "cost_usd": dollars(sum(each.cost for each in self._roles.values())),
        }

    def _cost_of(self, number: int) -> dict[str, Any]:
        costs = {str(role): dollars(self._roles[role].cost_by_round[number]) for role in ROLES}
        return {"round": number, **costs}


def bins(lengths: Mapping[int, int]) -> list[dict[str, int]]:
    """Return at most 40 bins of one width, a power of two, from the first that is not empty."""
    width = 1
    while lengths and max(lengths) // width - min(lengths) // width >= _MOST_BINS:
        width *= 2
    counts: Counter[int] = Counter()
    for length, count in lengths.items():
        counts[length // width] += count
    return [
        {"low": at * width, "high": (at + 1) * width - 1, "count": counts[at]}
        for at in (range(min(counts), max(counts) + 1) if counts else ())
    ]
