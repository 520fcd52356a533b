"""Two models that answered the same prompts: what the one gained and lost against the other.

Only what needs both sides at once; the numbers of each side are `statistics`. Knows nothing of pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tunesmith.sampling.examples import Chosen, Prompt, example, shown_reply
from tunesmith.sampling.metrics import Difference
from tunesmith.sampling.rows import Row

MOST_SHOWN = 4  # of those that gained, and as many that lost


def compare(
    prompts: Iterable[Prompt],
    before_of: Callable[[str], Sequence[Row]],
    after_of: Callable[[str], Sequence[Row]],
) -> dict[str, Any]:
    """What changed between two sets of rows of the same prompts, as plain values.

    - `prompts`: those judged on both sides; `gained`: more of their replies are right after, `lost`: fewer
    - `difference`: mean over prompts of the share of right replies, after less before, with a 95 % interval
    - `changed`: examples, gained ones first: {`id`, `messages`, `earlier_messages`, `expected`, `gained`,
      `before`, `after` (as `examples.shown_reply`)}
    """
    difference, chosen = Difference(), {True: Chosen(MOST_SHOWN), False: Chosen(MOST_SHOWN)}
    count = {True: 0, False: 0}
    for prompt in prompts:
        before, after = _judged(before_of(prompt.id)), _judged(after_of(prompt.id))
        if not before or not after:
            continue
        change = _share(after) - _share(before)
        difference.add(change)
        if change:
            count[change > 0] += 1
            chosen[change > 0].offer(prompt.id, partial(_changed, prompt, before, after))
    return {
        "prompts": difference.pairs,
        "gained": count[True],
        "lost": count[False],
        **difference.as_dict("difference"),
        "changed": [each for gained in (True, False) for each in chosen[gained].values()],
    }


def _judged(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.cancelled]


def _share(rows: Sequence[Row]) -> float:
    return sum(row.accepted for row in rows) / len(rows)


def _changed(prompt: Prompt, before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    gained = _share(after) > _share(before)
    shown = example(prompt, after)
    return {
        **{name: shown[name] for name in ("id", "messages", "earlier_messages", "expected")},
        "gained": gained,
        "before": shown_reply(_first(before, accepted=not gained)),
        "after": shown_reply(_first(after, accepted=gained)),
    }


def _first(rows: Sequence[Row], *, accepted: bool) -> Row:
    """The first row with this verdict: there is one, since the other side has fewer or more of them."""
    return next(row for row in rows if row.accepted is accepted)
