"""Seeds of dialogues: a question, a weak answer and optionally a better one; or several such rounds.

Does not depend on files or endpoints, nor on how many rounds a job wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.chat import LISTS, conversation, turns_from_chat, turns_of
from tunesmith.data.formats.fields import (
    Fields,
    fields_of,
    is_empty,
    named,
    optional_text,
    plain,
    present,
    text_field,
)
from tunesmith.data.formats.instruction import question_from_instruction, reply_from_instruction
from tunesmith.data.formats.tools import calls_of, tools_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message, ToolCall

_ONE_OF_EACH = "a seed is one question and one answer"
_TEXTS = ("question", "answer", "correction")
STEPS = "steps"
"""A round's calls of tools and their results before its answer."""


@dataclass(frozen=True, slots=True)
class SeedRound:
    """One round of a record. Texts to be generated are None, `truncated` names the truncated ones.

    `reasoning` are the thoughts that an earlier job kept beside its texts. `steps` are calls of tools and
    their results between the question and the answer, `calls` those of the answer itself, which may then have
    no text.
    """

    question: str
    answer: str | None = None
    correction: str | None = None
    truncated: tuple[str, ...] = ()
    reasoning: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Message, ...] = ()
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class DialogueSeed:
    """The dialogue of a record, of which only the last round may lack texts.

    `id` is the record's own, if it has one; `seed` is what an earlier job wrote beside an id that it
    generated. `tools` are those that the answering model is offered, as in `Conversation`.
    """

    rounds: tuple[SeedRound, ...]
    id: str | None = None
    seed: str | None = None
    tools: str = ""


def seed_from(value: Mapping[str, Any]) -> DialogueSeed:
    """Return the seed of a record, in one of these forms:

    - `{question, answer, correction}`
    - `{rounds: [{question, answer, correction}, …]}`, a history; of its last round, answer and correction may
      be absent
    - Alpaca with or without `correction`
    - chat: one question and answer with a `correction`, several with `corrections` (a list, one per
      answer), or each question followed by two replies, the answer and its correction

    Other than Alpaca, a record may have `tools`. Raises RecordProblem, whose message names the field, also if
    a dialogue lacks its corrections.
    """
    record, own = fields_of(value), plain(value)
    if own.get("rounds") is not None:
        return DialogueSeed(_history(record), _id(record), _made_from(record), tools_of(record, ()))
    if own.get("question") is not None:
        return DialogueSeed((_whole_round(record),), _id(record), tools=tools_of(record, ()))
    if own.get("instruction") is not None:
        return DialogueSeed((_alpaca(record),), _id(record))
    if any(own.get(name) is not None for name in LISTS):
        return DialogueSeed(_chat(record), _id(record), tools=tools_of(record, ()))
    raise RecordProblem(
        f"no seed was found: {present(value)}; question, answer and correction, or rounds, or instruction and"
        " output, or messages and correction are required"
    )


def _history(record: Fields) -> tuple[SeedRound, ...]:
    rounds = record["rounds"]
    if not isinstance(rounds, list):
        raise RecordProblem(f"rounds is {type_name(rounds)}, not a list")
    if not rounds:
        raise RecordProblem("rounds is empty")
    for index, each in enumerate(rounds):
        if not isinstance(each, Mapping):
            raise RecordProblem(f"rounds[{index}] is {type_name(each)}, not an object")
    *before, last = (record.part(each, "rounds[]") for each in rounds)
    whole = [_whole_round(each, f"rounds[{index}]") for index, each in enumerate(before)]
    return (*whole, _last_round(last, f"rounds[{len(before)}]"))


def _whole_round(value: Fields, inside: str = "") -> SeedRound:
    steps, calls = _steps(value, inside), _calls(value, inside)
    question, answer = _filled(value, "question", inside), _answer(value, inside, calls)
    correction = _filled(value, "correction", inside)
    marks = (_truncated(value, inside), _reasoning(value, inside))
    return SeedRound(question, answer, correction, *marks, steps, calls)


def _answer(value: Mapping[str, Any], inside: str, calls: Sequence[ToolCall]) -> str:
    """Return the answer, which may be blank only if it calls tools."""
    if calls:
        return optional_text(value, "answer", inside) or ""
    return _filled(value, "answer", inside)


def _calls(value: Fields, inside: str) -> tuple[ToolCall, ...]:
    """Return the calls of a round's answer."""
    return calls_of(value, inside or "record", "rounds[]" if inside else "")


def _steps(value: Fields, inside: str) -> tuple[Message, ...]:
    """Return a round's calls and results before its answer, in histories that an earlier job wrote."""
    given = value.get(STEPS)
    if is_empty(given):
        return ()
    turns = turns_of(value, given, named(STEPS, inside))
    if any(not turn.calls and turn.role != "tool" for turn in turns):
        raise RecordProblem(f"{named(STEPS, inside)} must be calls of tools and their results")
    return tuple(turns)


def _last_round(value: Fields, inside: str) -> SeedRound:
    """Read a round that may end after its question or its answer, as in a dialogue that failed there."""
    if value.get("correction") is not None:
        return _whole_round(value, inside)
    steps, calls = _steps(value, inside), _calls(value, inside)
    answer = None if value.get("answer") is None and not calls else _answer(value, inside, calls)
    question, thoughts = _filled(value, "question", inside), _reasoning(value, inside)
    return SeedRound(question, answer, None, _truncated(value, inside), thoughts, steps, calls)


def _truncated(value: Mapping[str, Any], inside: str) -> tuple[str, ...]:
    """Return the texts that an earlier job marked as truncated at maxTokens."""
    marks = value.get("truncated")
    if marks is None:
        return ()
    if not isinstance(marks, list) or not all(mark in _TEXTS for mark in marks):
        raise RecordProblem(f"{named('truncated', inside)} is not a list of question, answer or correction")
    return tuple(name for name in _TEXTS if name in marks)


def _reasoning(value: Mapping[str, Any], inside: str) -> dict[str, str]:
    """Return the thoughts before some of the texts, in histories that an earlier job wrote."""
    found = value.get("reasoning") if inside else None
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(
        name in _TEXTS and isinstance(text, str) for name, text in found.items()
    ):
        raise RecordProblem(
            f"{named('reasoning', inside)} is not an object of texts named question, answer or correction"
        )
    return {name: found[name] for name in _TEXTS if found.get(name)}


def _alpaca(value: Mapping[str, Any]) -> SeedRound:
    messages = [*question_from_instruction(value), Message("assistant", reply_from_instruction(value))]
    if _roles(messages) != ["user", "assistant"]:
        raise RecordProblem(f"the dialogue is {', '.join(_roles(messages))}; {_ONE_OF_EACH}")
    correction = None if value.get("correction") is None else _filled(value, "correction")
    return _round([*messages, *([] if correction is None else [Message("assistant", correction)])])


def _chat(value: Mapping[str, Any]) -> tuple[SeedRound, ...]:
    dialogues = turns_from_chat(value)
    if len(dialogues) > 1:
        raise RecordProblem(f"the record has {len(dialogues)} dialogues; {_ONE_OF_EACH}")
    messages, steps = _without_steps(conversation(dialogues[0], None).messages)
    if "assistant assistant" in " ".join(_roles(messages)):
        return _in_rounds(messages, ("user", "assistant", "assistant"), steps)
    return _corrected(_in_rounds(messages, ("user", "assistant"), steps), value)


def _without_steps(messages: Sequence[Message]) -> tuple[list[Message], dict[int, tuple[Message, ...]]]:
    """Return the messages without calls that have results, and these by how many messages are before them."""
    kept: list[Message] = []
    steps: dict[int, tuple[Message, ...]] = {}
    for at, message in enumerate(messages):
        answered = message.calls and at + 1 < len(messages) and messages[at + 1].role == "tool"
        if answered or message.role == "tool":
            steps[len(kept)] = (*steps.get(len(kept), ()), message)
        else:
            kept.append(message)
    return kept, steps


def _corrected(rounds: Sequence[SeedRound], value: Mapping[str, Any]) -> tuple[SeedRound, ...]:
    """Return the rounds with the record's corrections."""
    if len(rounds) == 1 and value.get("corrections") is None:
        return (replace(rounds[0], correction=_filled(value, "correction")),)
    texts = value.get("corrections")
    if texts is None:
        raise RecordProblem(
            f"the dialogue has {len(rounds)} rounds, and corrections is missing: a list, one per answer "
            "(messages.jsonl of a DialogueGenJob has no answers; its roundN_history.jsonl does)"
        )
    if not isinstance(texts, list):
        raise RecordProblem(f"corrections is {type_name(texts)}, not a list")
    if len(texts) != len(rounds):
        raise RecordProblem(
            f"the length of corrections is {len(texts)}, but the dialogue has {len(rounds)} answers"
        )
    corrections = {f"corrections[{index}]": text for index, text in enumerate(texts)}
    return tuple(
        replace(each, correction=_filled(corrections, name))
        for each, name in zip(rounds, corrections, strict=True)
    )


def _in_rounds(
    messages: Sequence[Message], form: Sequence[str], steps: Mapping[int, tuple[Message, ...]]
) -> tuple[SeedRound, ...]:
    """Split the messages into rounds of this form, with the steps before each answer."""
    roles, size = _roles(messages), len(form)
    if roles != list(form) * (len(roles) // size) or any(at % size != 1 for at in steps):
        raise RecordProblem(
            f"the dialogue is {', '.join(roles)}; {_ONE_OF_EACH}, or several such rounds in a row"
        )
    return tuple(
        _round(messages[at : at + size], steps.get(at + 1, ())) for at in range(0, len(messages), size)
    )


def _round(messages: Sequence[Message], steps: tuple[Message, ...] = ()) -> SeedRound:
    texts = dict(zip(_TEXTS, (message.content for message in messages), strict=False))
    if not texts["question"].strip():
        raise RecordProblem("the question is empty")
    calls = messages[1].calls
    return SeedRound(texts["question"], texts["answer"], texts.get("correction"), steps=steps, calls=calls)


def _roles(messages: Sequence[Message]) -> list[str]:
    return [message.role for message in messages]


def _filled(value: Mapping[str, Any], field: str, inside: str = "") -> str:
    text = text_field(value, field, inside)
    if not text.strip():
        raise RecordProblem(f"{named(field, inside)} is empty")
    return text


def _id(value: Mapping[str, Any]) -> str | None:
    given = value.get("id")
    if type(given) is int:
        return str(given)
    if given is not None and not isinstance(given, str):
        raise RecordProblem(f"id is {type_name(given)}, not text or a whole number")
    return (optional_text(value, "id") or "").strip() or None


def _made_from(value: Mapping[str, Any]) -> str | None:
    made_from = value.get("seed")
    return made_from if isinstance(made_from, str) and made_from.strip() else None
