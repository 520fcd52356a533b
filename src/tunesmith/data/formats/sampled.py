"""Format `sampled`: an accepted reply, with weight 1/n for the n accepted replies of its case.

Does not depend on how replies are sampled, nor on files: the reader of a file counts its cases first
(`count_case`) and then checks each record (`check_counts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.chat import conversation
from tunesmith.data.formats.fields import (
    Fields,
    fields_of,
    present,
    refuse_beside_messages,
    refuse_in_turn,
    text_field,
)
from tunesmith.data.formats.legal import Laws, case_from, prompt_messages, whole_number
from tunesmith.data.formats.thoughts import with_thoughts
from tunesmith.data.formats.tools import calls_of, template_arguments, tools_of, with_call
from tunesmith.data.formats.weights import LEAST_WEIGHT
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import ROLES, Conversation, Message

COUNT_FIELD = "num_correct_for_this_sample"
REPLY_MESSAGE = "response_message"
"""The reply as a message, where it calls tools: `response` is its text as it was sampled."""
NO_ARTICLES = (
    "prompt is missing; set sampled.articlesUri to the file of articles, from which the prompt is made as at "
    "inference"
)
# Fields that differ between the replies of one case.
_OF_THE_REPLY = ("id", "response", REPLY_MESSAGE, COUNT_FIELD, "sample_index", "finish_reason")

# What the prompt was made from, and how the reply was sampled: not trained on.
_TOLD_BY_PROMPT = (
    "id", "sample_index", "finish_reason", "fact", "relevant_articles", "charge", "prison_time", "label",
)  # fmt: skip

Counts = dict[int, int]


def conversation_from_sampled(
    value: Mapping[str, Any],
    *,
    laws: Laws | None = None,
    system_prompt: str | None = None,
) -> Conversation:
    """Return the prompt's messages and the `response`, whose weight is 1 / `num_correct_for_this_sample`.

    A record without `prompt` gets that of `legalJudgement` at inference, made from its `fact`, its
    `relevant_articles` and the texts in `laws`. Replies inside the prompt have weight 0. A reply that calls
    tools is a message in `response_message`. Raises RecordProblem, whose message names the field.
    """
    record = fields_of(value)
    record.know(*_TOLD_BY_PROMPT)
    reply = text_field(record, "response")
    if not reply.strip():
        raise RecordProblem("response is empty")
    prompt, weight = _prompt(record, laws), 1 / _correct(record)
    learned = replace(_reply_message(record) or Message("assistant", reply), weight=weight)
    refuse_beside_messages(record, chat=True)
    return replace(
        conversation([*prompt, learned], system_prompt),
        tools=tools_of(record, prompt),
        arguments=template_arguments(record),
    )


def _reply_message(record: Fields) -> Message | None:
    given = record.get(REPLY_MESSAGE)
    if given is None:
        return None
    message = _message(record, given, REPLY_MESSAGE, REPLY_MESSAGE)
    if message.role != "assistant":
        raise RecordProblem(f"{REPLY_MESSAGE} is of role {message.role}, not assistant")
    return message


def is_legal(value: Mapping[str, Any], laws: Laws | None) -> bool:
    """Return whether the record's prompt is that of `legalJudgement`, made here or in the record."""
    if laws is None or value.get("fact") is None:
        return False
    if value.get("prompt") is None:
        return True
    with suppress(RecordProblem):
        own = (
            message for message in _messages(fields_of(value), value["prompt"]) if message.role != "system"
        )
        return tuple(own) == prompt_messages(case_from(value), laws.articles, laws.changed)
    return False


def case_key(value: Mapping[str, Any]) -> str:
    """Return what the replies of one case share; never raises for JSON values.

    The `id` if `sample_index` shows that one case has several records: a RejectionSampleJob writes both.
    An `id` alone may number the records, so the prompt decides, or `fact` and `relevant_articles`, or all
    fields that do not belong to the reply.
    """
    given = value.get("id")
    if value.get("sample_index") is not None and isinstance(given, str | int) and given != "":
        return f"id {given}"
    if value.get("prompt") is not None:
        return _digest(value["prompt"])
    if value.get("fact") is not None:
        return _digest([value["fact"], value.get("relevant_articles")])
    return _digest({field: value[field] for field in value if field not in _OF_THE_REPLY})


def count_case(counts: Counts, file: str, value: Mapping[str, Any]) -> None:
    """Count a record of a file. A case costs one small number, whatever the length of its prompt."""
    key = _number(file, value)
    counts[key] = counts.get(key, 0) + 1


def check_counts(counts: Counts, file: str, value: Mapping[str, Any]) -> None:
    """Raise RecordProblem if the record's n is not the number of its case's records in its file."""
    given, found = _correct(value), counts.get(_number(file, value), 0)
    if given != found:
        raise RecordProblem(f"{COUNT_FIELD} is {given}, but the file has {found} of this case")


def _correct(value: Mapping[str, Any]) -> int:
    if value.get(COUNT_FIELD) is None:
        raise RecordProblem(f"{COUNT_FIELD} is missing: {present(value)}")
    number = whole_number(value[COUNT_FIELD], COUNT_FIELD)
    if number == 0 or 1 / number < LEAST_WEIGHT:
        raise RecordProblem(f"{COUNT_FIELD} is {number}; it must be between 1 and {1 / LEAST_WEIGHT:.0f}")
    return number


def _prompt(value: Fields, laws: Laws | None) -> list[Message]:
    prompt = value.get("prompt")
    if prompt is not None:
        return _messages(value, prompt)
    if value.get("fact") is None:
        raise RecordProblem(f"prompt is missing, and there is no fact to make one from: {present(value)}")
    if laws is None:
        raise RecordProblem(NO_ARTICLES)
    return list(prompt_messages(case_from(value), laws.articles, laws.changed))


def _messages(record: Fields, prompt: object) -> list[Message]:
    if not isinstance(prompt, list):
        raise RecordProblem(f"prompt is {type_name(prompt)}, not a list of messages")
    if not prompt:
        raise RecordProblem("prompt is empty")
    return [_message(record, turn, f"prompt[{index}]", "prompt[]") for index, turn in enumerate(prompt)]


def _message(record: Fields, given: object, name: str, label: str) -> Message:
    if not isinstance(given, Mapping):
        raise RecordProblem(f"{name} is {type_name(given)}, not an object")
    turn = record.part(given, label)
    refuse_in_turn(turn, name, chat=True)
    role = text_field(turn, "role", name)
    if role not in ROLES:
        raise RecordProblem(f'{name}.role is "{role[:40]}"; valid are {", ".join(ROLES)}')
    if role != "assistant":
        return with_call(Message(role, text_field(turn, "content", name)), turn, name)
    calls = calls_of(turn, name, label)
    content = "" if calls and turn.get("content") is None else text_field(turn, "content", name)
    return Message(role, with_thoughts(turn, content, name), 0.0, calls)


def _number(file: str, value: Mapping[str, Any]) -> int:
    digest = blake2b(f"{file}\0{case_key(value)}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(text.encode(), digest_size=16).hexdigest()
