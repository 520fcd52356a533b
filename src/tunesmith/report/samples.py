"""The first samples of each dataset and kind, for people: as plain text, and as values for pages.

Does not depend on where they go. Labels and weights are read from the sample itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from tunesmith.data.prepared import FirstSample, Prepared
from tunesmith.data.report import DatasetReport, counted
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Sample
from tunesmith.tokens.show import as_plain, spans

_KINDS = {
    "user": "user simulation",
    "legal": "legal case",
    "settings": "settings question",
    "imitation-without-scene": "imitation without a scene",
}
_MOST_WEIGHTS = 3


def grouped(prepared: Prepared) -> Iterator[tuple[str, list[FirstSample]]]:
    """Yield a heading with the number of samples, and the first samples, per dataset and kind."""
    for (dataset, kind), found in groupby(prepared.first, lambda first: (first.dataset, first.kind)):
        samples = list(found)
        yield heading(prepared.reports[dataset], kind, len(samples)), samples


def heading(report: DatasetReport, kind: str, shown: int) -> str:
    """Return dataset and kind, how many of all samples are shown, and `repeat` if it is not 1."""
    whole = report.kinds.get(kind, shown)
    first = (
        f"the first {shown:,} of {counted(whole, 'sample')}" if shown < whole else counted(whole, "sample")
    )
    repeat = f", repeat {report.repeat:g}" if report.repeat != 1 else ""
    return f"{report.name}, {_KINDS.get(kind, kind)}: {first}{repeat}"


def facts(first: FirstSample) -> str:
    """Return a sample's tokens, labels, weight, and how often an epoch shows it."""
    weights = first.sample.weights
    labels = sum(1 for weight in weights if weight)
    often = "once" if first.copies == 1 else f"{first.copies:,} times"
    return (
        f"{counted(len(weights), 'token')}, {labels:,} of them labels, {weight_of(first.sample)}, "
        f"{often} per epoch"
    )


def weight_of(sample: Sample) -> str:
    """Return the weight of the sample's labels, as 1/n if it is one over an integer."""
    found = sorted({round(weight, 7) for weight in sample.weights if weight}, reverse=True)
    texts = [_weight(weight) for weight in found[:_MOST_WEIGHTS]] + ["…"] * (len(found) > _MOST_WEIGHTS)
    return f"weight {texts[0]}" if len(texts) == 1 else f"weights {', '.join(texts)}"


def _weight(weight: float) -> str:
    inverse = round(1 / weight)
    return f"1/{inverse:,}" if inverse > 1 and abs(weight * inverse - 1) < 1e-6 * inverse else f"{weight:.4g}"


def samples_text(prepared: Prepared, tokenizer: ChatTokenizer) -> str:
    """Return the first samples as plain text, labels between « and »."""
    parts = []
    for title, samples in grouped(prepared):
        parts.append(f"=== {title}\n")
        parts += [
            f"--- sample {number}: {first.place}, {facts(first)}\n{as_plain(first.sample, tokenizer)}\n"
            for number, first in enumerate(samples, 1)
        ]
    return "\n".join(parts)


def sample_values(prepared: Prepared, tokenizer: ChatTokenizer) -> list[dict[str, Any]]:
    """Return the values of `labelled` in parts.html.j2: [{title, samples: [{place, facts, spans}]}]."""
    return [
        {"title": title, "samples": list(_values(samples, tokenizer))} for title, samples in grouped(prepared)
    ]


def _values(samples: Iterable[FirstSample], tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    for first in samples:
        runs = [list(run) for run in spans(first.sample, tokenizer)]
        yield {"place": first.place, "facts": facts(first), "spans": runs}
