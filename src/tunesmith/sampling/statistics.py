"""What `sampling_stats.json` says, counted prompt by prompt from rows that are done.

Holds a few kilobytes to a few megabytes, whatever the number of prompts. Does not depend on files. Two models
that answered the same prompts are compared by `comparison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Protocol

from tunesmith.data.formats.judgement import UNKNOWN_TERM, WRONG_CHARGE, charge_parts, parse_judgement
from tunesmith.data.formats.legal import case_from, names_of
from tunesmith.sampling.busy import Busy
from tunesmith.sampling.metrics import Directions, Share
from tunesmith.sampling.rows import NONE, STOP, SampleRow
from tunesmith.sampling.verdict import (
    CRASHED,
    ERROR,
    MEMORY,
    NONSENSE,
    PROMPT_TOO_LONG,
    REASONS,
    TIMEOUT,
    TRUNCATED,
)

# Such a reply was not accepted, and whether it is correct is unknown.
WITHOUT_VERDICT = frozenset(
    {UNKNOWN_TERM, ERROR, NONSENSE, TIMEOUT, MEMORY, CRASHED, TRUNCATED, PROMPT_TOO_LONG}
)
_MOST_BINS = 64
_MOST_PAIRS, _SHOWN_PAIRS, _LONGEST_NAME = 10_000, 20, 80


class JudgedPrompt(Protocol):
    """The part of `data.prompts.store.Prompt` that is needed here."""

    @property
    def id(self) -> str:
        """Return the same for all its replies."""
        ...

    @property
    def record(self) -> Mapping[str, Any]:
        """Return the user's own fields."""
        ...

    @property
    def label(self) -> str | None:
        """Return the direction of a changed law, for legal prompts that have one."""
        ...


class SamplingStatistics:
    """Feed it with `add`, then ask for `values`."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples, self._prompts, self._all_correct = num_samples, 0, 0
        self._planned, self._drawn, self._cancelled, self._without_verdict = 0, 0, 0, 0
        self._not_sampled = 0
        self._prompt_tokens, self._tokens, self._accepted_tokens = 0, 0, 0
        self._busy = Busy()
        self._of_drawn, self._of_all = Share(), Share()
        self._reasons: Counter[str] = Counter()
        self._correct = [0] * (num_samples + 1)
        self._lengths = {True: Lengths(), False: Lengths()}
        self._directions, self._charges = Directions(), WrongCharges()

    def add(self, prompt: JudgedPrompt, rows: Sequence[SampleRow]) -> None:
        """Add one prompt with all its rows, including those that were not sampled."""
        accepted = sum(row.accepted for row in rows)
        drawn = [row for row in rows if row.drawn]
        judged = [row for row in rows if not row.cancelled]
        self._prompts += 1
        self._planned += len(rows)
        self._drawn += len(drawn)
        self._cancelled += len(rows) - len(judged)
        self._not_sampled += not drawn and any(row.finish_reason == NONE for row in rows)
        self._all_correct += 0 < accepted == len(judged)
        self._correct[accepted] += 1
        self._of_drawn.add(accepted, len(drawn))
        self._of_all.add(accepted, len(judged))
        self._prompt_tokens += max((row.prompt_tokens for row in rows), default=0)
        for row in judged:
            self._add_reply(prompt, row)
        if prompt.label is not None:
            whole = [row.response for row in drawn if row.finish_reason == STOP]
            self._directions.add(prompt.label, whole, accepted, len(judged))

    def _add_reply(self, prompt: JudgedPrompt, row: SampleRow) -> None:
        self._tokens += row.tokens
        self._accepted_tokens += row.tokens * row.accepted
        if row.at:
            self._busy.add(row.began or row.at, row.at)
        if row.finish_reason != NONE:
            self._lengths[row.accepted].add(row.tokens)
            self._without_verdict += row.reason in WITHOUT_VERDICT
        if not row.accepted:
            self._reasons[row.reason] += 1
        if row.reason == WRONG_CHARGE:
            self._charges.add(prompt.record, row.response)

    def values(self) -> dict[str, Any]:
        """Return the counts by name.

        - `total_prompts`, `num_samples` (planned for each), `planned_generations`; `generations`: those drawn
          to their end or to their longest; `cancelled`: cancelled by stopAfterAccepted
        - `accepted`; `acceptance_rate`: of `generations`; `accuracy`: of all that was not cancelled, so that
          a prompt that does not fit counts as failed; both with a 95 % interval (`metrics.Share`)
        - `prompts_not_sampled`: those to which no reply could be sampled
        - `prompts_with_none_correct`, `prompts_with_all_correct`, `mean_correct_per_prompt`;
          `correct_per_prompt`: at index k the number of prompts with k accepted replies
        - `reasons`: {reason: replies not accepted}; `truncated` and `prompt_too_long` once more;
          `without_verdict`: generations that no verifier could judge
        - `tokens`: `prompt` (each prompt once), `drawn`, `accepted`; `lengths`: replies by tokens drawn, from
          `low` to `high`, both included
        - `seconds`: in which at least one of these replies was in progress, over all attempts, from when an
          engine was first asked; `tokens_per_second`: those drawn, in these seconds
        - `directions`: see `metrics.Directions`; `wrong_charges`: see `WrongCharges`
        """
        seconds = self._busy.seconds
        return {
            "total_prompts": self._prompts,
            "num_samples": self._num_samples,
            "planned_generations": self._planned,
            "generations": self._drawn,
            "cancelled": self._cancelled,
            "accepted": self._of_all.hits,
            **self._of_drawn.as_dict("acceptance_rate"),
            **self._of_all.as_dict("accuracy"),
            "prompts_not_sampled": self._not_sampled,
            "prompts_with_none_correct": self._correct[0],
            "prompts_with_all_correct": self._all_correct,
            "mean_correct_per_prompt": round(self._of_all.hits / max(1, self._prompts), 6),
            "correct_per_prompt": self._correct,
            "reasons": {name: self._reasons[name] for name in REASONS if self._reasons[name]},
            "truncated": self._reasons[TRUNCATED],
            "prompt_too_long": self._reasons[PROMPT_TOO_LONG],
            "without_verdict": self._without_verdict,
            "tokens": {
                "prompt": self._prompt_tokens,
                "drawn": self._tokens,
                "accepted": self._accepted_tokens,
            },
            "lengths": together(self._lengths[True], self._lengths[False]),
            "seconds": round(seconds, 1),
            "tokens_per_second": round(self._tokens / seconds, 1) if seconds > 0 else None,
            "directions": self._directions.values(),
            "wrong_charges": self._charges.values(),
        }


class Lengths:
    """A histogram of whole numbers in at most 64 bins from 0 on, whose width doubles as lengths grow."""

    def __init__(self) -> None:
        self.width = 1
        self.counts: list[int] = []

    def add(self, length: int) -> None:
        """Count one length, 0 or more."""
        while length >= self.width * _MOST_BINS:
            self.widen()
        bin_ = length // self.width
        self.counts += [0] * (bin_ + 1 - len(self.counts))
        self.counts[bin_] += 1

    def widen(self) -> None:
        """Merge each two bins into one."""
        even, odd = self.counts[::2], self.counts[1::2]
        self.counts = [one + other for one, other in zip_longest(even, odd, fillvalue=0)]
        self.width *= 2


def together(accepted: Lengths, rejected: Lengths) -> list[dict[str, int]]:
    """Return both as `[{low, high, accepted, rejected}]` from the first bin that is not empty."""
    while accepted.width != rejected.width:
        min(accepted, rejected, key=lambda one: one.width).widen()
    pairs = list(zip_longest(accepted.counts, rejected.counts, fillvalue=0))
    first = next((at for at, pair in enumerate(pairs) if any(pair)), 0)
    return [
        {
            "low": at * accepted.width,
            "high": (at + 1) * accepted.width - 1,
            "accepted": right,
            "rejected": wrong,
        }
        for at, (right, wrong) in enumerate(pairs)
        if at >= first
    ]


class WrongCharges:
    """Which charge was right and which was said, for replies that are wrong by it.

    Exact for the first 10,000 pairs that come; replies with a pair that is seen later are counted as `other`.
    """

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._other = 0

    def add(self, record: Mapping[str, Any], reply: str) -> None:
        """Add one reply whose reason is `wrong_charge`."""
        said, case = parse_judgement(reply), case_from(record)
        charges = charge_parts(case.charges), said.charges if said else frozenset()
        pair = _short(names_of(charges[0], case.fact)), _short(names_of(charges[1], case.fact))
        if pair in self._pairs or len(self._pairs) < _MOST_PAIRS:
            self._pairs[pair] += 1
        else:
            self._other += 1

    def values(self) -> dict[str, Any]:
        """`most_frequent`: at most 20 of `{expected, said, count}`; `other`: all other replies."""
        ranked = sorted(self._pairs.items(), key=lambda item: (-item[1], item[0]))
        shown, rest = ranked[:_SHOWN_PAIRS], ranked[_SHOWN_PAIRS:]
        return {
            "most_frequent": [
                {"expected": expected, "said": said, "count": count} for (expected, said), count in shown
            ],
            "other": self._other + sum(count for _, count in rest),
        }


def _short(text: str) -> str:
    """Return a shortened name, since a reply may name anything."""
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
