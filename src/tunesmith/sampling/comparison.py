"""Two models that answered the same prompts: what the one gained and lost against the other.

Only what needs both sides at once; the numbers of each side are `statistics`. Does not depend on pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tunesmith.data.formats.judgement import direction, parse_judgement
from tunesmith.sampling.examples import Chosen, ShownPrompt, example, shown_reply
from tunesmith.sampling.metrics import Difference
from tunesmith.sampling.rows import STOP, SampleRow

MOST_SHOWN = 4  # of those that gained, and as many that lost


class Comparison:
    """Feed it with `add`, then ask for `values`; `shown` examples of each kind are kept."""

    def __init__(self, shown: int = MOST_SHOWN) -> None:
        self._right, self._there = Difference(), Difference()
        self._chosen = {True: Chosen(shown), False: Chosen(shown)}
        self._count = {True: 0, False: 0}

    def add(self, prompt: ShownPrompt, before: Sequence[SampleRow], after: Sequence[SampleRow]) -> None:
        """Add one prompt with both models' rows; it counts only if both have a judged one."""
        before, after = judged(before), judged(after)
        if not before or not after:
            return
        change = _share(after) - _share(before)
        self._right.add(change)
        if prompt.label is not None:
            self._there.add(
                in_direction(prompt.label, after) / len(after)
                - in_direction(prompt.label, before) / len(before)
            )
        if change:
            self._count[change > 0] += 1
            self._chosen[change > 0].offer(prompt.id, partial(_changed, prompt, before, after))

    def values(self) -> dict[str, Any]:
        """Return what changed, as plain values.

        - `prompts`: those judged on both sides; `gained`: more of their replies are accepted after, `lost`:
          fewer
        - `difference`: mean over prompts of the share of accepted replies, after less before, with a 95 %
          interval (`metrics.Difference`)
        - `labelled`: prompts with a label; `direction_difference`: the same of replies in its direction; both
          only if there are labels
        - `changed`: examples, gained ones first: {`id`, `messages`, `earlier_messages`, `expected`, `gained`,
          `before`, `after` (as `examples.shown_reply`)}
        """
        there = self._there
        directions = {"labelled": there.pairs, **there.as_dict("direction_difference")} if there.pairs else {}
        return {
            "prompts": self._right.pairs,
            "gained": self._count[True],
            "lost": self._count[False],
            **self._right.as_dict("difference"),
            **directions,
            "changed": [each for gained in (True, False) for each in self._chosen[gained].values()],
        }


def compare(
    prompts: Iterable[ShownPrompt],
    before_of: Callable[[str], Sequence[SampleRow]],
    after_of: Callable[[str], Sequence[SampleRow]],
) -> dict[str, Any]:
    """Return what changed between two sets of rows of the same prompts, as `Comparison.values` has it."""
    comparison = Comparison()
    for prompt in prompts:
        comparison.add(prompt, before_of(prompt.id), after_of(prompt.id))
    return comparison.values()


def judged(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """Return the rows that count: all but those that were cancelled."""
    return [row for row in rows if not row.cancelled]


def in_direction(label: str, rows: Sequence[SampleRow]) -> int:
    """Count the replies in the label's direction; one that was truncated or not sampled has none."""
    whole = (row.response for row in rows if row.finish_reason == STOP)
    return sum(direction(label, parse_judgement(reply)) for reply in whole)


def _share(rows: Sequence[SampleRow]) -> float:
    return sum(row.accepted for row in rows) / len(rows)


def _changed(prompt: ShownPrompt, before: Sequence[SampleRow], after: Sequence[SampleRow]) -> dict[str, Any]:
    gained = _share(after) > _share(before)
    shown = example(prompt, after)
    return {
        **{name: shown[name] for name in ("id", "messages", "earlier_messages", "expected")},
        "gained": gained,
        "before": shown_reply(_first(before, accepted=not gained)),
        "after": shown_reply(_first(after, accepted=gained)),
    }


def _first(rows: Sequence[SampleRow], *, accepted: bool) -> SampleRow:
    """Return the first row with this verdict; one exists, since the other side has fewer or more of them."""
    return next(row for row in rows if row.accepted is accepted)
