"""Prompts of a chat with a model, as made in training: by a preset, with a record if it needs one.

The result is a conversation whose last reply is still empty, from the readers that training uses; the ids are
made by the tokenizer (`ChatTokenizer.asked`). Does not depend on models and terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tunesmith.api.data_formats import UserSimulationFormat
from tunesmith.data.formats.chat import with_system_prompt
from tunesmith.data.formats.histories import UserTalks, history
from tunesmith.data.formats.legal import Laws, LegalCase, case_from, prompt_messages
from tunesmith.data.formats.user_prompt import shows_part
from tunesmith.data.formats.user_simulation import next_turn
from tunesmith.data.formats.users import UserDialogue, UserTurn, dialogues_of
from tunesmith.data.prompts.presets import PLACE, Preset
from tunesmith.data.record import RecordProblem, SourceLocation
from tunesmith.tokens.conversation import Conversation, Message


class Exchange(NamedTuple):
    """A question and its reply; `between` are the calls of tools before the reply, with their results."""

    said: str
    reply: str
    between: tuple[Message, ...] = ()


Ask = Callable[[Sequence[Exchange], str], Conversation]
"""Makes a conversation whose last reply is empty from earlier exchanges and the person's text."""
REPLY = Message("assistant", "")


def ask_plainly(system: str | None) -> Ask:
    """Ask with the person's text alone, below a system message if there is one."""
    opening = [Message("system", system)] if system else []
    return lambda past, text: Conversation((*opening, *_turns(past), Message("user", text), REPLY))


def ask_by_messages(preset: Preset) -> Ask:
    """Ask with a preset that has messages, without earlier exchanges if training had each question alone."""
    *opening, last = [Message(each.role, each.content) for each in preset.messages or ()]

    def filled(text: str) -> str:
        return last.content.removesuffix(PLACE) + text if preset.takes_text else last.content

    def ask(past: Sequence[Exchange], text: str) -> Conversation:
        before = () if preset.each_alone else [each._replace(said=filled(each.said)) for each in past]
        return Conversation((*opening, *_turns(before), Message(last.role, filled(text)), REPLY))

    return ask


def ask_about_cases(preset: Preset, record: Mapping[str, Any], laws: Laws) -> Ask:
    """Ask for a judgement of facts under the articles of a record. Raises RecordProblem."""
    case = case_from({"fact": PLACE, **record})
    prompt_messages(case, laws.articles, laws.changed)  # references a missing article

    def ask(past: Sequence[Exchange], text: str) -> Conversation:
        question = prompt_messages(LegalCase(text, case.articles, frozenset()), laws.articles, laws.changed)
        return Conversation((*with_system_prompt(list(question), preset.system_prompt), REPLY))

    return ask


def ask_a_user(preset: Preset, record: Mapping[str, Any]) -> Ask:
    """Ask for a simulated user's next utterance; the person is the other side. Raises RecordProblem.

    The record's dialogues are the user's history, if training had one. If training had no dialogue, the
    person's text replaces `continuation_prefix`, with nothing before it.
    """
    fmt = preset.user_simulation
    assert fmt is not None
    *others, new = _dialogues(record)
    past_lines: tuple[str, ...] = ()
    if shows_part(fmt, "history"):
        talks = UserTalks([*others, new])
        past_lines = history(talks, len(others), new, lambda line: False, fmt.history)

    def ask(past: Sequence[Exchange], text: str) -> Conversation:
        return next_turn(fmt, _said(fmt, new, past, text), past_lines, preset.system_prompt)

    return ask


def _said(fmt: UserSimulationFormat, new: UserDialogue, past: Sequence[Exchange], text: str) -> UserDialogue:
    if not shows_part(fmt, "context"):
        return replace(new, prefix=text)
    turns = [turn for each in past for turn in (UserTurn(False, each.said), UserTurn(True, each.reply))]
    return replace(new, turns=(*turns, UserTurn(False, text)))


def _dialogues(record: Mapping[str, Any]) -> list[UserDialogue]:
    """Return the record's dialogues, and at the end an empty one."""
    place = SourceLocation("--record", "")
    if "next_question" in record:
        (only,) = dialogues_of(place, record)
        return [replace(only, turns=(), target="", prefix="", time=None)]
    task = record.get("task")
    if not isinstance(task, Mapping | None):
        raise RecordProblem("task is not an object")
    collections = (task or {}).get("task_behavior_collections")
    if not isinstance(collections, list | None):
        raise RecordProblem("task.task_behavior_collections is not a list")
    begun = {"data": [{"context": [], "continuation": ""}]}
    whole = {**(task or {}), "task_behavior_collections": [*(collections or ()), begun]}
    return dialogues_of(place, {**record, "task": whole})


def _turns(past: Sequence[Exchange]) -> list[Message]:
    return [
        message
        for each in past
        for message in (Message("user", each.said), *each.between, Message("assistant", each.reply))
    ]
