"""The files of a RejectionSampleJob, out of its prompts and their rows.

Streams: a prompt and its rows are in memory, and nothing else. The same prompts and rows give the same bytes,
so that an attempt that was killed in here harms no other. Does not depend on where the files go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunesmith.artifacts.json_files import JsonList, json_line, whole_file
from tunesmith.data.formats.sampled import COUNT_FIELD, REPLY_MESSAGE
from tunesmith.names import PREFERENCE_KEY, REJECTED_KEY, SAMPLED_DATA_KEY, SAMPLING_STATS_KEY
from tunesmith.sampling.examples import PromptExamples, ShownPrompt
from tunesmith.sampling.rows import SampleRow
from tunesmith.sampling.statistics import WITHOUT_VERDICT, SamplingStatistics

# Where a record has these they come first, whatever their order was.
_LEGAL_FIELDS = ("fact", "relevant_articles", "charge", "prison_time")
# What a record of an output has besides the user's own fields.
OF_ACCEPTED = ("id", "prompt", "sample_index", "finish_reason", "response", REPLY_MESSAGE, COUNT_FIELD)
OF_REJECTED = (*OF_ACCEPTED, "reason", "details", "tokens")


@dataclass(frozen=True, slots=True)
class SamplingOutputs:
    """What the files hold, for the report: `statistics` as in sampling_stats.json, `examples` by kind."""

    statistics: dict[str, Any]
    examples: dict[str, list[dict[str, Any]]]


def write_outputs(
    prompts: Iterable[ShownPrompt],
    rows_of: Callable[[str], Sequence[SampleRow]],
    folder: Path,
    *,
    num_samples: int,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> SamplingOutputs:
    """Write sampled_data.json, rejected.jsonl, preference.jsonl and sampling_stats.json.

    `rows_of` gives all rows of a prompt's id in order (`rows.rows_of_prompt`), `facts` are values that the
    statistics have besides. A file is written whole or not at all. Raises what `rows_of` does, and
    TemporaryError if the disk is full.
    """
    statistics, examples = SamplingStatistics(num_samples), PromptExamples()
    with ExitStack() as files:
        sampled = JsonList(files.enter_context(whole_file(folder / SAMPLED_DATA_KEY)))
        rejected = files.enter_context(whole_file(folder / REJECTED_KEY))
        preference = files.enter_context(whole_file(folder / PREFERENCE_KEY))
        for prompt in prompts:
            rows = rows_of(prompt.id)
            for each in accepted_records(prompt, rows):
                sampled.add(each)
            rejected.writelines(json_line(each) for each in rejected_records(prompt, rows))
            preference.writelines(json_line(each) for each in preferences(prompt, rows))
            statistics.add(prompt, rows)
            examples.add(prompt, rows)
        sampled.end()
    values = {**facts, **statistics.values()}
    with whole_file(folder / SAMPLING_STATS_KEY) as file:
        file.write(json.dumps(values, ensure_ascii=False, indent=2).encode() + b"\n")
    return SamplingOutputs(values, examples.values())


def accepted_records(prompt: ShownPrompt, rows: Sequence[SampleRow]) -> Iterator[dict[str, Any]]:
    """Yield what FineTuneJob's format `sampled` reads: n is how many replies to this prompt were accepted."""
    fields, messages = record_fields(prompt, OF_ACCEPTED), messages_of(prompt)
    accepted = [row for row in rows if row.accepted]
    for row in accepted:
        reply = prompt.reply(row.response)
        yield {
            **fields,
            "response": row.response,
            **({REPLY_MESSAGE: reply.as_dict()} if reply.calls else {}),
            COUNT_FIELD: len(accepted),
            "id": row.id,
            "prompt": messages,
            "sample_index": row.sample_index,
            "finish_reason": row.finish_reason,
        }


def rejected_records(prompt: ShownPrompt, rows: Sequence[SampleRow]) -> Iterator[dict[str, Any]]:
    """Yield all others but those that were cancelled, each with the reason."""
    fields, messages = record_fields(prompt, OF_REJECTED), messages_of(prompt)
    for row in rows:
        if not row.accepted and not row.cancelled:
            yield {
                **fields,
                "response": row.response,
                "reason": row.reason,
                "details": row.details,
                "id": row.id,
                "prompt": messages,
                "sample_index": row.sample_index,
                "finish_reason": row.finish_reason,
                "tokens": row.tokens,
            }


def preferences(prompt: ShownPrompt, rows: Sequence[SampleRow]) -> Iterator[dict[str, Any]]:
    """Yield unpaired preferences in conversational form, as TRL's KTOTrainer reads them.

    Only replies with a verdict: it is not known if one that was truncated, or that no verifier could judge,
    is worse than others.
    """
    messages, offered = messages_of(prompt), dict[str, Any]()
    if prompt.tools:
        offered["tools"] = json.loads(prompt.tools)
    if prompt.arguments:
        offered["chat_template_kwargs"] = json.loads(prompt.arguments)
    for row in rows:
        if row.drawn and row.reason not in WITHOUT_VERDICT:
            completion = [prompt.reply(row.response).as_dict()]
            yield {"prompt": messages, "completion": completion, "label": row.accepted, **offered}


def messages_of(prompt: ShownPrompt) -> list[dict[str, Any]]:
    """Return the prompt as data sets have it."""
    return [message.as_dict() for message in prompt.messages]


def record_fields(prompt: ShownPrompt, ours: Sequence[str]) -> dict[str, Any]:
    """Return the record's own fields; one whose name is among `ours` is kept as `record_<name>`.

    An `id` that is the prompt's id anyway is not said twice.
    """
    record, fields = prompt.record, dict[str, Any]()
    for name in sorted(record, key=_place):
        if name == "id" and str(record[name]) == prompt.id:
            continue
        kept = name
        while kept in ours or (kept != name and kept in record):
            kept = f"record_{kept}"
        fields[kept] = record[name]
    return fields


def _place(name: str) -> int:
    return _LEGAL_FIELDS.index(name) if name in _LEGAL_FIELDS else len(_LEGAL_FIELDS)
