"""Samples displayed for people: which text is context, which is label. Needs neither torch nor a model."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from tunesmith.text import visible
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Sample


def spans(sample: Sample, tokenizer: ChatTokenizer) -> list[tuple[str, bool]]:
    """Return the sample's text as runs of (text, is label); joined they are the decoded sample.

    A character whose bytes are on both sides of a boundary belongs to the later run; one that is incomplete
    at the end of a truncated reply is left out.
    """
    whole = tokenizer.decode_whole(sample.ids)
    runs: list[tuple[str, bool]] = []
    tokens = done = 0
    for is_label, group in groupby(weight > 0 for weight in sample.weights):
        tokens += len(list(group))
        last = tokens == len(sample.ids)
        end = len(whole) if last else _shared(tokenizer.decode_whole(sample.ids[:tokens]), whole)
        if end > done:
            runs.append((whole[done:end], is_label))
        done = max(done, end)
    return runs


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts have in common from the start."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))


def as_text(sample: Sample, tokenizer: ChatTokenizer) -> Text:
    """Return the sample for a terminal: labels bold green, context dim."""
    text = Text()
    for run, is_label in spans(sample, tokenizer):
        text.append(visible(run), style="bold green" if is_label else "dim")
    return text


def as_plain(sample: Sample, tokenizer: ChatTokenizer) -> str:
    """Return the sample for a file: labels between « and »."""
    return "".join(f"«{run}»" if is_label else run for run, is_label in spans(sample, tokenizer))
