"""The prompt of a record: its messages up to the model's reply, and the fields that verify the reply.

Three formats, those of `api.datasets.PromptsSpec`. Does not depend on files, ids and tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.api.datasets import PromptsSpec
from tunesmith.data.formats.chat import prompt_turns, turns_field, turns_from_chat, with_system_prompt
from tunesmith.data.formats.fields import Fields, fields_of, refuse_beside_messages
from tunesmith.data.formats.instruction import question_from_instruction
from tunesmith.data.formats.legal import LegalCase, articles_from, case_from, prompt_messages
from tunesmith.data.formats.oasst import is_tree
from tunesmith.data.formats.pairs import COMPLETION, PROMPT
from tunesmith.data.formats.sampled import COUNT_FIELD, REPLY_MESSAGE
from tunesmith.data.formats.tools import template_arguments, tools_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message
from tunesmith.tokens.thoughts import thought_of

REFERENCE = "reference"
_OF_A_REPLY = ("prompt", "response", REPLY_MESSAGE, COUNT_FIELD, "sample_index", "finish_reason")
_OF_A_REJECTED_REPLY = (*_OF_A_REPLY, "reason", "details", "tokens")
_MOVED = "record_"  # prefix for a record's field names that an output uses itself
_NOT_SAID = {"charge": "", "prison_time": None}


@dataclass(frozen=True, slots=True)
class RecordPrompt:
    """One prompt of a record. `record` has the fields for the verifier and the outputs.

    `tools` and `arguments` are as in `Conversation`.
    """

    record: dict[str, Any]
    messages: tuple[Message, ...]
    label: str | None = None
    tools: str = ""
    arguments: str = ""


def is_reply(value: Mapping[str, Any]) -> bool:
    """Return whether the record is a reply from a RejectionSampleJob: one of several to its prompt."""
    return "response" in value and (COUNT_FIELD in value or "sample_index" in value)


def prompt_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the prompt: for an earlier job's reply, without those of the reply."""
    if not is_reply(value):
        return dict(value)
    of_reply = _OF_A_REPLY if COUNT_FIELD in value else _OF_A_REJECTED_REPLY
    fields = {name: value[name] for name in value if name not in of_reply}
    moved = {name: f"{_MOVED}{name}" for name in of_reply if f"{_MOVED}{name}" in fields}
    return fields | {name: fields.pop(there) for name, there in moved.items()}


def prompts_from(
    value: Mapping[str, Any],
    spec: PromptsSpec,
    articles: Mapping[str, str],
    changed: Mapping[str, str] | None = None,
    label: str | None = None,
) -> list[RecordPrompt]:
    """Return the record's prompts: one, or every distinct one of a message tree.

    For legalJudgement, `articles` are the texts by id, `changed` those after a change of the law, and `label`
    is the set's. All fields of a record of chat or instruction go to the verifier and the outputs, so none of
    them is unread. Raises RecordProblem, whose message names the field.
    """
    fields = fields_of(value)
    value = fields.value
    if spec.legal_judgement is not None:
        asked = [_legal(fields, articles, changed, label or spec.legal_judgement.label)]
    elif spec.instruction is not None:
        fields.know(*value)
        asked = [RecordPrompt(prompt_fields(value), tuple(question_from_instruction(fields)))]
    else:
        fields.know(*value)
        asked = _chat(fields)
    return [
        replace(each, messages=tuple(with_system_prompt(list(each.messages), spec.system_prompt)))
        for each in asked
    ]


def _legal(
    fields: Fields,
    articles: Mapping[str, str],
    changed: Mapping[str, str] | None,
    label: str | None,
) -> RecordPrompt:
    case = case_from(fields, label=label)
    return RecordPrompt(
        _case_record(fields.value, case), prompt_messages(case, articles, changed), case.label
    )


def _case_record(value: Mapping[str, Any], case: LegalCase) -> dict[str, Any]:
    """Return the record in LawShift's form; a CAIL2018 row then needs no `meta`."""
    record = prompt_fields(value) | {"relevant_articles": list(case.articles)}
    if record.pop("meta", None) is not None:
        charges = sorted(case.charges)
        record |= {"charge": charges if len(charges) > 1 else "".join(charges), "prison_time": case.months}
    return record | {name: empty for name, empty in _NOT_SAID.items() if name not in record}


def _chat(fields: Fields) -> list[RecordPrompt]:
    record = prompt_fields(fields.value)
    if is_tree(fields):
        record.pop("prompt", None)
    arguments = template_arguments(fields)
    found: dict[tuple[Message, ...], RecordPrompt] = {}
    for turns in _turns(fields):
        messages, reference = _question(turns)
        own = record if reference is None or REFERENCE in record else record | {REFERENCE: reference}
        tools = tools_of(fields, messages)
        found.setdefault(messages, RecordPrompt(own, messages, tools=tools, arguments=arguments))
    return list(found.values())


def _turns(fields: Fields) -> list[list[Message]]:
    """Use `prompt`, a conversation or the user's words, of a record that has no other conversation.

    A `completion` beside it is the reply.
    """
    value = fields.value
    alone = turns_field(value) is None and value.get(COMPLETION) is None
    if alone and isinstance(value.get(PROMPT), list | str):
        refuse_beside_messages(fields, chat=True)
        return [prompt_turns(fields)]
    return turns_from_chat(fields)


def _question(turns: Sequence[Message]) -> tuple[tuple[Message, ...], str | None]:
    """Return the turns up to the last question, or a tool's result, and the last reply after it with text."""
    if not any(turn.role == "user" for turn in turns):
        raise RecordProblem("there is no user message")
    end = max(at for at, turn in enumerate(turns, 1) if turn.role in ("user", "tool"))
    if turns[end - 1].role == "user" and not turns[end - 1].content.strip():
        raise RecordProblem("the last user message is empty")
    replies = [_answer(turn) for turn in turns[end:] if turn.role == "assistant" and not turn.calls]
    return tuple(replace(turn, weight=1.0) for turn in turns[:end]), replies[-1] if replies else None


def _answer(reply: Message) -> str:
    """Return what a reply says after its thoughts, as verifiers compare it."""
    found = thought_of(reply)
    return reply.content if found is None else found[2].strip()


def articles_of(values: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the articles' texts by id, from their files' records: `{id: text}`, or `{id, content}` each.

    Raises RecordProblem, whose message names the article.
    """
    if len(values) == 1 and not _is_article(values[0]):
        return articles_from(values[0])
    listed: list[Mapping[str, Any]] = []
    for value in values:
        pairs = [value] if _is_article(value) else [{"id": key, "content": value[key]} for key in value]
        listed += pairs
    return articles_from(listed)


def _is_article(value: Mapping[str, Any]) -> bool:
    return "id" in value or "content" in value
