"""Several models that answered the same prompts: in total, by set and by label, and each against each.

One pass over the prompts; in memory are counts only. Does not depend on engines, files or pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol

from tunesmith.data.formats.legal import LABELS
from tunesmith.sampling.comparison import MOST_SHOWN, Comparison, in_direction, judged
from tunesmith.sampling.examples import ShownPrompt
from tunesmith.sampling.metrics import Share
from tunesmith.sampling.rows import SampleRow

RowsOf = Callable[[str], Sequence[SampleRow]]


class PromptOfSet(ShownPrompt, Protocol):
    """The part of `data.prompts.store.Prompt` that is needed here."""

    @property
    def set(self) -> str:
        """Return the test set it belongs to, "" if there are none."""
        ...


@dataclass(slots=True)
class ModelScore:
    """How one model did on some prompts: replies accepted, and replies in the label's direction."""

    right: Share = field(default_factory=Share)
    there: Share = field(default_factory=Share)

    def add(self, label: str | None, rows: Sequence[SampleRow]) -> None:
        """Add one prompt, with the rows that were judged."""
        self.right.add(sum(row.accepted for row in rows), len(rows))
        if label is not None:
            self.there.add(in_direction(label, rows), len(rows))

    def values(self) -> dict[str, Any]:
        """`replies`, `accepted`, `accuracy`; of labelled prompts `labelled` (replies), `in_direction`,
        `direction_rate`; both shares with a 95 % interval."""
        values = {
            "replies": self.right.trials,
            "accepted": self.right.hits,
            **self.right.as_dict("accuracy"),
        }
        if self.there.trials:
            values |= {
                "labelled": self.there.trials,
                "in_direction": self.there.hits,
                **self.there.as_dict("direction_rate"),
            }
        return values


class _Group:
    """All models on the prompts of one set, of one label, or on all; one of them against each other."""

    def __init__(self, models: int, subject: int) -> None:
        self.prompts = 0
        self.labels: set[str | None] = set()
        self._subject = subject
        self._tallies = [ModelScore() for _ in range(models)]
        self._against = {other: Comparison(shown=0) for other in range(models) if other != subject}

    def add(self, prompt: PromptOfSet, sides: Sequence[Sequence[SampleRow]]) -> None:
        self.prompts += 1
        self.labels.add(prompt.label)
        for tally, rows in zip(self._tallies, sides, strict=True):
            tally.add(prompt.label, rows)
        for other, comparison in self._against.items():
            comparison.add(prompt, sides[other], sides[self._subject])

    def values(self) -> dict[str, Any]:
        """`prompts`, `models` (`ModelScore.values`), `differences` (the subject less each other)."""
        differences = [each.values() for each in self._against.values()]
        return {
            "prompts": self.prompts,
            "models": [tally.values() for tally in self._tallies],
            "differences": [
                {name: value for name, value in each.items() if name != "changed"} for each in differences
            ],
        }


class ModelScores:
    """Feed it with `add`, then ask for `values`. `subject`: the place of the model that is compared."""

    def __init__(self, names: Sequence[str], subject: int = 0) -> None:
        self._names, self._subject = list(names), subject
        order = [subject, *(other for other in range(len(names)) if other != subject)]
        self._total, self._sets, self._labels = self._group(), dict[str, _Group](), dict[str, _Group]()
        self._pairs = {
            (one, other): Comparison(MOST_SHOWN if one == subject else 0)
            for one, other in combinations(order, 2)
        }

    def _group(self) -> _Group:
        return _Group(len(self._names), self._subject)

    def add(self, prompt: PromptOfSet, rows: Sequence[Sequence[SampleRow]]) -> None:
        """Add one prompt with the rows of each model."""
        sides = [judged(each) for each in rows]
        groups = [self._total]
        if prompt.set:
            groups.append(self._sets.setdefault(prompt.set, self._group()))
        if prompt.label is not None:
            groups.append(self._labels.setdefault(prompt.label, self._group()))
        for group in groups:
            group.add(prompt, sides)
        for (one, other), comparison in self._pairs.items():
            comparison.add(prompt, sides[other], sides[one])

    def values(self) -> dict[str, Any]:
        """Return everything as plain values.

        - `names`, `subject` (a name); `total`: all prompts (as `_Group.values`)
        - `sets`: one a set, by name: `name`, `label` ("" where its prompts have none, or several) and as
          above
        - `labels`: one a label, in the order of `legal.LABELS`: `label` and as above
        - `pairs`: the subject less each other model, then each of these less each later one: `model`,
          `against` and as `Comparison.values`
        """
        return {
            "names": self._names,
            "subject": self._names[self._subject],
            "total": self._total.values(),
            "sets": [
                {"name": name, "label": _only(group.labels), **group.values()}
                for name, group in sorted(self._sets.items())
            ],
            "labels": [
                {"label": label, **self._labels[label].values()} for label in LABELS if label in self._labels
            ],
            "pairs": [
                {"model": self._names[one], "against": self._names[other], **comparison.values()}
                for (one, other), comparison in self._pairs.items()
            ],
        }


def count_models(
    prompts: Iterable[PromptOfSet], sides: Sequence[tuple[str, RowsOf]], subject: int = 0
) -> dict[str, Any]:
    """Return `ModelScores.values` of all prompts; a side is a model's name and its rows by prompt id."""
    models = ModelScores([name for name, _ in sides], subject)
    for prompt in prompts:
        models.add(prompt, [rows_of(prompt.id) for _, rows_of in sides])
    return models.values()


def _only(labels: set[str | None]) -> str:
    (label, *others) = labels
    return "" if others or label is None else label
