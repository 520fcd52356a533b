"""Records of users: a user's profile and dialogues.

Two shapes are read: a user's task and behaviour collections, and samples that were already extracted.
Does not depend on prompts, choices and splits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from math import isfinite
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import Fields, fields_of, named, optional_text, present
from tunesmith.data.formats.language import Language, language_of, start_of
from tunesmith.data.formats.user_words import WORDS
from tunesmith.data.record import RecordProblem, SourceLocation

UNKNOWN = "unknown"
HASH_LENGTH = 6
_HASHES = ("user_hash", "hash")


@dataclass(frozen=True, slots=True)
class UserTurn:
    """An utterance; `mine` if it is the simulated user's."""

    mine: bool
    text: str


@dataclass(frozen=True, slots=True)
class Persona:
    """What a prompt may contain of a user. Lines of "field: value", without the user's hash.

    `language` is that of the record, for the text around these.
    """

    profile: tuple[str, ...] = ()
    personality: tuple[str, ...] = ()
    task: str = ""
    language: Language = "en"


@dataclass(frozen=True, slots=True)
class UserDialogue:
    """One data item: the turns before `target`, the user's next utterance; blank turns are left out.

    `prefix` is the target's subject if the data has it (the film of a review). `time` orders a user's
    dialogues. `history` is the record's own. `extracted`: the item is one sample.
    """

    place: SourceLocation
    persona: Persona
    turns: tuple[UserTurn, ...]
    target: str
    prefix: str = ""
    time: float | None = None
    history: tuple[str, ...] | None = None
    extracted: bool = False


def user_of(value: object) -> tuple[str, bool]:
    """Return the key of a record's user, and if it is a `user_hash`; else the profile's name or "unknown"."""
    if not isinstance(value, Mapping):
        return UNKNOWN, False
    given = value.get("user_hash")
    if (isinstance(given, str) and given.strip()) or type(given) is int:
        return str(given).strip(), True
    return _name(_profile(value)) or UNKNOWN, False


def dialogues_of(place: SourceLocation, value: Mapping[str, Any]) -> list[UserDialogue]:
    """Yield every dialogue of a record. Raises RecordProblem, whose message names the field."""
    record = fields_of(value)
    given = record.get("user_hash")
    if given is not None and not isinstance(given, str) and type(given) is not int:
        raise RecordProblem(f"user_hash is {given!r:.40}; it must be text or a whole number")
    if "next_question" in record:
        return _in_their_language([_extracted(place, record)])
    task = record.get("task")
    if task is None:
        raise RecordProblem(
            f"neither task nor next_question was found: {present(record)}; "
            "user simulation reads users with their task, or extracted samples"
        )
    return _in_their_language(list(_nested(place, record, _object(task, "task"))))


def _in_their_language(dialogues: list[UserDialogue]) -> list[UserDialogue]:
    """Return the dialogues of one record, which have one language: that of the utterances and of the profile.

    The task decides if these have no letters, and the user's next utterance if that has none either.
    """
    if not dialogues:
        return []
    persona = dialogues[0].persona
    said = (
        text
        for dialogue in dialogues
        for text in (*(turn.text for turn in dialogue.turns), dialogue.prefix, *(dialogue.history or ()))
    )
    lines = (line.partition(": ")[2] or line for line in (*persona.profile, *persona.personality))
    targets = start_of(dialogue.target for dialogue in dialogues)
    language = language_of(start_of(chain(said, lines)), persona.task, targets, among=WORDS)
    persona = replace(persona, language=language)
    return [replace(dialogue, persona=persona) for dialogue in dialogues]


def _nested(place: SourceLocation, record: Fields, given: Mapping[str, Any]) -> Iterator[UserDialogue]:
    task = record.part(given, "task")
    persona = _persona(record, optional_text(task, "description", "task") or "")
    name = _name(_profile(record.value))
    field = "task.task_behavior_collections"
    if task.get("task_behavior_collections") is None:
        raise RecordProblem(f"{field} is missing")
    number = 0
    for at, collection in enumerate(_list(task["task_behavior_collections"], field)):
        inside = f"{field}[{at}]"
        items = record.part(_object(collection, inside), f"{field}[]").get("data")
        if items is None:
            raise RecordProblem(f"{inside}.data is missing")
        for index, item in enumerate(_list(items, f"{inside}.data")):
            number += 1
            where = SourceLocation(place.file, f"{place.where}, dialogue {number}")
            named_item = f"{inside}.data[{index}]"
            fields = record.part(_object(item, named_item), f"{field}[].data[]")
            yield _dialogue(where, persona, fields, name, named_item)


def _dialogue(place: SourceLocation, persona: Persona, item: Fields, name: str, field: str) -> UserDialogue:
    return UserDialogue(
        place,
        persona,
        tuple(_turns(item, "source", ("user", name), f"{field}.context")),
        _said(item, "continuation", field),
        _said(item, "continuation_prefix", field, needed=False),
        _time(item.get("timestamp"), f"{field}.timestamp"),
    )


def _extracted(place: SourceLocation, record: Fields) -> UserDialogue:
    history, task = record.get("history"), record.get("task")
    if isinstance(task, Mapping):
        description = optional_text(record.part(task, "task"), "description", "task")
    else:
        description = optional_text(record, "task")
    return UserDialogue(
        place,
        _persona(record, description or ""),
        tuple(_turns(record, "role", ("assistant",), "context")),
        _said(record, "next_question", ""),
        time=_time(record.get("timestamp"), "timestamp"),
        history=None if history is None else tuple(_utterances(record, history)),
        extracted=True,
    )


def _utterances(record: Fields, history: object) -> Iterator[str]:
    """Return a record's own history: texts, or objects with `content`."""
    if isinstance(history, str):
        history = history.splitlines()
    for index, each in enumerate(_list(history, "history")):
        name = f"history[{index}]"
        text = _said(record.part(each, "history[]"), "content", name) if isinstance(each, Mapping) else each
        if not isinstance(text, str):
            raise RecordProblem(f"{name} is {type_name(text)}, not text")
        if text.strip():
            yield text


def _turns(item: Fields, side: str, mine: tuple[str, ...], field: str) -> Iterator[UserTurn]:
    context = item.get("context")
    for index, given in enumerate([] if context is None else _list(context, field)):
        name = f"{field}[{index}]"
        turn = _object(given, name)
        if turn.keys() != {side, "content"}:  # the usual turn has no other fields, and needs no further check
            turn = item.part(turn, f"{item.label}.context[]" if item.label else "context[]")
        source = optional_text(turn, side, name)
        if source is None:
            raise RecordProblem(f"{name}.{side} is missing")
        text = _said(turn, "content", name)
        if text.strip():
            who = source.strip()
            yield UserTurn(bool(who) and (who.lower() == mine[0] or who in mine[1:]), text)


def _said(value: Mapping[str, Any], field: str, inside: str, *, needed: bool = True) -> str:
    """Return a text, or a number as text (a rating)."""
    given = value.get(field)
    if isinstance(given, str):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        return str(given)
    if given is None and not needed:
        return ""
    name = named(field, inside)
    raise RecordProblem(f"{name} is missing" if given is None else f"{name} is {type_name(given)}, not text")


def _time(given: object, name: str) -> float | None:
    """Return seconds; a text is a number or an ISO date."""
    if given is None or given == "":
        return None
    reads: tuple[Callable[[Any], float], ...] = (_date, float) if isinstance(given, str) else (float,)
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        for read in reads:
            with suppress(ValueError, OverflowError):
                seconds = read(given)
                if isfinite(seconds):
                    return seconds
    raise RecordProblem(f"{name} is {given!r:.40}; it must be a number or a date like 2024-05-31 12:00:00")


def _date(text: str) -> float:
    """Parse a date, also 2015/5/3 and 20150503; other runs of digits are seconds."""
    text = text.strip()
    if text.isdigit() and not (len(text) == 8 and text[:2] in ("19", "20")):
        raise ValueError(text)
    padded = re.sub(r"-(?=\d(\D|$))", "-0", re.sub(r"[/.](?=\d{1,2}(\D|$))", "-", text[:10])) + text[10:]
    when = datetime.fromisoformat(padded)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _profile(value: Mapping[str, Any]) -> Any:
    user = value.get("user")
    inside = user.get("profile") if isinstance(user, Mapping) else None
    return value.get("user_profile") if inside is None else inside


def _name(profile: object) -> str:
    name = profile.get("name") if isinstance(profile, Mapping) else None
    return name.strip() if isinstance(name, str) else ""


def _persona(record: Fields, task: str) -> Persona:
    given = record.get("user")
    if given is not None and not isinstance(given, Mapping):
        raise RecordProblem(f"user is {type_name(given)}, not an object")
    user = record.part(given or {}, "user")
    personality, profile = user.get("personality"), user.get("profile")
    secret = hashed.strip() if isinstance(hashed := record.get("user_hash"), str) else None
    parts: Mapping[str, Any] = {"unstructured": personality}
    if isinstance(personality, Mapping):
        parts = record.part(personality, "user.personality")
    lines = [*_lines(parts.get("structured"), secret), *_lines(parts.get("unstructured"), secret)]
    known = _lines(record.get("user_profile") if profile is None else profile, secret)
    return Persona(
        tuple(_without(line, secret) for line in known),
        tuple(_without(line, secret) for line in lines),
        _without(task.strip(), secret),
    )


def _without(text: str, secret: str | None) -> str:
    """Remove the user's hash from a text, also within a sentence; a short one may be any word."""
    if not secret or len(secret) < HASH_LENGTH or secret not in text:
        return text
    return text.replace(secret, "…")


def _lines(value: object, secret: str | None, field: str = "") -> Iterator[str]:
    """Return any JSON value as lines of "field: value", without empty ones and without the user's hash."""
    match value:
        case dict():
            for key, each in value.items():
                if key not in _HASHES:
                    yield from _lines(each, secret, named(key, field))
        case list() if value and all(isinstance(each, str | int | float) for each in value):
            text = ", ".join(str(each) for each in value if str(each).strip() != secret)
            if text:
                yield f"{field}: {text}" if field else text
        case list():
            for each in value:
                yield from _lines(each, secret, field)
        case None:
            return
        case _:
            text = str(value).strip()
            if text and text != secret:
                yield f"{field}: {text}" if field else text


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecordProblem(f"{name} is {type_name(value)}, not an object")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordProblem(f"{name} is {type_name(value)}, not a list")
    return value
