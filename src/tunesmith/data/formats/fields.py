"""Read the fields of a record by name, with errors that name them, and track those that were not read.

Does not depend on any format: a reader reads what it understands, and what is left is counted by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.record import RecordProblem

SYSTEM = ("system", "system_prompt", "system_message")
"""Names of a record's system message."""
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
TEMPLATE = (
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "template_kwargs",
    "enable_thinking",
)
"""Arguments for the chat template."""
PREFERENCE = (
    "chosen",
    "rejected",
    "chosen_messages",
    "rejected_messages",
    "chosen_response",
    "rejected_response",
    "positive_messages",
    "negative_messages",
    "preferred_output",
    "non_preferred_output",
    "kto_tag",
)
"""Better and worse replies, under the names that TRL, ms-swift, LLaMA-Factory and OpenAI use."""

# What a message cannot hold: leaving it out would train on something other than the data.
_LOST_IN_TURN = ("tools", "functions", "reasoning_details", "refusal", *MEDIA)
_ONLY_IN_CHAT = (
    "tool_calls",
    "function_call",
    "thinking",
    "reasoning",
    "reasoning_content",
    "thought",
    "thoughts",
)
"""What only conversations have room for."""
_BESIDE_CHAT = ("chat_template_kwargs", "template_kwargs", "enable_thinking")

OTHERS = "fields of other names"
_MOST_NAMES = 500
_EMPTY_TEXTS = ("[]", "{}", "null")
"""Empty JSON values as text, as in tables."""
_SHOWN_OF_NAME = 80
_NOT_TEXT = "only text is trained on; put it into the text, or remove it"
_ONE_WAY = "every record is rendered only by the model's template; remove it"
_NO_PREFERENCE = (
    "fine-tuning trains on every reply of the conversation and avoids none; keep the conversations"
    " to train on, and remove it"
)


class Fields(Mapping[str, Any]):
    """An object of a record that remembers which of its fields were read.

    `get` and `[]` read a field; `in` and iteration do not. `part` does the same for a nested object, and
    `unread` of the outermost one names what is left in all of them.
    """

    __slots__ = ("_parts", "_read", "label", "value")

    def __init__(self, value: Mapping[str, Any], label: str = "", parts: list[Fields] | None = None) -> None:
        self.value, self.label = value, label
        self._read: set[str] = set()
        self._parts = [] if parts is None else parts
        self._parts.append(self)

    def __getitem__(self, field: str) -> Any:
        self._read.add(field)
        return self.value[field]

    def get(self, field: str, default: Any = None) -> Any:
        """Read a field."""
        self._read.add(field)
        return self.value.get(field, default)

    def __contains__(self, field: object) -> bool:
        return field in self.value

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def part(self, value: Mapping[str, Any], label: str) -> Fields:
        """Return a nested object; its fields are counted under `label`, such as `messages[]`."""
        return Fields(value, label, self._parts)

    def know(self, *fields: str) -> None:
        """Mark fields as read that have nothing for a sample."""
        self._read.update(fields)

    def unread(self) -> Iterator[str]:
        """Yield the dotted name of every field that has a value and was not read, once per occurrence."""
        for part in self._parts:
            if part.value.keys() <= part._read:
                continue
            for field, value in part.value.items():
                if field not in part._read and not is_empty(value):
                    yield named(field, part.label)


class Unread(Counter[str]):
    """Counts how often each field was not read; of unbounded names, the first are kept."""

    def add(self, names: Iterable[str]) -> None:
        """Count one record's fields."""
        for name in names:
            known = name in self or len(self) < _MOST_NAMES
            self[name if known else OTHERS] += 1


def unread_text(unread: Mapping[str, int], shown: int = 20) -> str:
    """`source (1,000), score (12)`, the most frequent first; "" if all was read."""
    ranked = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    words = [f"{_short(name)} ({number:,})" for name, number in ranked[:shown]]
    more = [f"and {len(ranked) - shown:,} more"] if len(ranked) > shown else []
    return ", ".join(words + more)


def fields_of(value: Mapping[str, Any]) -> Fields:
    """Return the record as Fields, unless it already is."""
    return value if isinstance(value, Fields) else Fields(value)


def plain(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record itself, to look at without reading."""
    return value.value if isinstance(value, Fields) else value


def given_of(value: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return those of the names that the object has, whatever their values; looks without reading."""
    own = plain(value)
    return [] if own.keys().isdisjoint(names) else [name for name in names if name in own]


def is_empty(value: object) -> bool:
    """Return whether a field is empty: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def holds_nothing(value: object) -> bool:
    """Return whether a field is empty, or JSON as text that is."""
    return is_empty(value) or (isinstance(value, str) and value in _EMPTY_TEXTS)


def text_field(value: Mapping[str, Any], field: str, inside: str = "") -> str:
    """Return a field that must exist and be text; it may be empty."""
    text = optional_text(value, field, inside)
    if text is None:
        raise RecordProblem(f"{named(field, inside)} is missing")
    return text


def optional_text(value: Mapping[str, Any], field: str, inside: str = "") -> str | None:
    """Return a field that may be absent or null, and else must be text."""
    text = value.get(field)
    if text is not None and not isinstance(text, str):
        raise RecordProblem(f"{named(field, inside)} is {type_name(text)}, not text")
    return text


def same_text(value: Mapping[str, Any], names: Sequence[str], inside: str = "") -> tuple[str, str]:
    """Return the text under one or several of these names, and the first of them; "" if none.

    Raises RecordProblem if two of them differ.
    """
    found = given_of(value, names)
    if not found:
        return "", ""
    given = {name: text for name in found if (text := optional_text(value, name, inside))}
    first = next(iter(given), "")
    for name, text in given.items():
        if text != given[first]:
            raise differing(first, name, inside)
    return given.get(first, ""), first


def differing(one: str, other: str, inside: str = "") -> RecordProblem:
    """Return the problem that two names of one thing have different values."""
    return RecordProblem(f"{named(one, inside)} and {named(other, inside)} differ; keep one of them")


def refuse_fields(
    value: Mapping[str, Any], fields: Sequence[str], inside: str = "", why: str = _NOT_TEXT
) -> None:
    """Refuse fields that would otherwise be lost; empty ones are fine, and so is false."""
    for field in given_of(value, fields):
        given = value.get(field)
        if not holds_nothing(given) and given is not False:
            raise RecordProblem(f"{named(field, inside)} cannot be used: {why}")


def refuse_beside_messages(record: Mapping[str, Any], *, chat: bool = False) -> None:
    """Refuse a record's fields that would change how its messages are rendered.

    With `chat`, the record is one of the format chat, which has room for tools and template arguments.
    """
    refuse_fields(record, MEDIA if chat else ("tools", "functions", *MEDIA))
    for field in given_of(record, TEMPLATE):
        if not (chat and field in _BESIDE_CHAT) and not is_empty(record.get(field)):
            raise RecordProblem(f"{field} cannot be used: {_ONE_WAY}")


def refuse_in_turn(turn: Mapping[str, Any], name: str, *, chat: bool = False) -> None:
    """Refuse what would be lost of a turn; `chat` as in `refuse_beside_messages`."""
    if chat:
        refuse_fields(turn, ("tools", "functions"), name, "put them into the record, beside its messages")
    refuse_fields(turn, _LOST_IN_TURN if chat else (*_ONLY_IN_CHAT, *_LOST_IN_TURN), name)


def refuse_preference(record: Mapping[str, Any]) -> None:
    """Refuse a record's fields that rank replies as better or worse."""
    for field in given_of(record, PREFERENCE):
        if not is_empty(record.get(field)):
            raise RecordProblem(f"{field} cannot be used: {_NO_PREFERENCE}")
    if plain(record).get("label") is False:
        raise RecordProblem(f"label is false, which marks a bad reply: {_NO_PREFERENCE}")


def named(field: str, inside: str) -> str:
    """Return the dotted name of a field."""
    return f"{inside}.{field}" if inside else field


def present(value: Mapping[str, Any]) -> str:
    """Describe the record's own fields, for a message about which were expected."""
    names = ", ".join(list(value)[:8])
    return f"the record has {names}" if names else "the record is empty"


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_OF_NAME else f"{name[:_SHOWN_OF_NAME]}…"
